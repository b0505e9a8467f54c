//! Start scripts of releases, which take their name from `RELEASE_*`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use meshx_e2e::{Mesh, Need, skips};

use crate::cluster::calls_and_monitors;
use crate::{A, B};

/// A real release of an empty application, built once, without the network.
fn release(folder: &Path) -> PathBuf {
    static BUILD: OnceLock<()> = OnceLock::new();
    let project = folder.join("app");
    let mix = |arguments: &[&str], folder: &Path| {
        let output = Command::new("mix")
            .args(arguments)
            .current_dir(folder)
            .env("HOME", folder)
            .env("MIX_ENV", "prod")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        assert!(output.status.success(), "mix {arguments:?}: {output:?}");
    };
    BUILD.get_or_init(|| {
        mix(&["new", "app", "--sup"], folder);
        mix(&["release", "--quiet"], &project);
    });
    project.join("_build/prod/rel/app/bin/app")
}

#[test]
fn an_unmodified_mix_release_joins() {
    if skips(&[Need::Erlang, Need::Elixir]) {
        return;
    }
    let mesh = Mesh::agent();
    let script = release(mesh.home());
    let script = script.to_str().unwrap();
    let mut first = mesh.exec(&["--name", A], &[script, "start"]);
    let mut b = mesh.vm_builder(B).erl(&["-setcookie", &cookie(script)]).start();
    b.await_eval(&format!("net_kernel:connect_node('{A}')"), "true", Duration::from_secs(20));
    calls_and_monitors(&mut b, A);
    // The release's own commands find the running node through the mesh.
    let rpc = mesh.exec(&["--name", "rem@myhost"], &[script, "eval", "IO.puts(:evaluated)"]);
    rpc.await_stdout("evaluated", Duration::from_secs(20));
    b.eval(&format!("rpc:cast('{A}', init, stop, [])"));
    assert_eq!(first.wait(Duration::from_secs(20)).code(), Some(0));
}

/// The cookie that `mix release` made up.
fn cookie(script: &str) -> String {
    let path = Path::new(script).parent().unwrap().parent().unwrap().join("releases/COOKIE");
    fs::read_to_string(path).unwrap()
}

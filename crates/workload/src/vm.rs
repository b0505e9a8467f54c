//! The environment that makes an unmodified VM ask our front door.

use std::path::Path;

use meshx_core::{HostForm, NodeName};

use crate::naming::{NamesMode, NodePlan, name_flag};

/// Where the user may have put flags for the VM.
const FLAG_VARIABLES: [&str; 4] = ["ERL_AFLAGS", "ERL_FLAGS", "ERL_ZFLAGS", "ELIXIR_ERL_OPTIONS"];

/// The variables for the VM and whatever script starts it.
///
/// `ERL_AFLAGS` comes before every other flag of the VM, and where two flags say different things
/// the first one wins, so ours hold against a release's `vm.args`. Once the VM runs it puts the
/// user's own value back (or removes the variable), so that VMs which it starts are not given its
/// name and front door.
pub(crate) fn environment(
    plan: &NodePlan,
    hidden: bool,
    socket: &Path,
    code: &Path,
    command: &[std::ffi::OsString],
    variable: &dyn Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let theirs = variable("ERL_AFLAGS").filter(|flags| !flags.trim().is_empty());
    let says_inet6 = speaks_inet6(command, variable);
    let is_inet6 = plan.expected.as_ref().is_some_and(|name| name.form() == HostForm::LongIpv6);
    let mut flags = format!("-epmd_module meshx_epmd -pa {} -start_epmd false", code.display());
    flags.push_str(if is_inet6 || says_inet6 {
        " -kernel inet_dist_use_interface {0,0,0,0,0,0,0,1}"
    } else {
        " -kernel inet_dist_use_interface {127,0,0,1}"
    });
    if is_inet6 && !says_inet6 {
        // Said twice, the VM takes neither.
        flags.push_str(" -proto_dist inet6_tcp");
    }
    if hidden || plan.visitor {
        flags.push_str(" -hidden");
    }
    if let (NamesMode::Aflags, Some(node)) = (plan.mode, &plan.expected) {
        flags.extend([" ", name_flag(node), " ", node.as_str()]);
    }
    flags.push_str(&restore(theirs.as_deref()));
    if let Some(theirs) = &theirs {
        flags.push(' ');
        flags.push_str(theirs);
    }
    let mut variables = vec![
        ("ERL_AFLAGS".to_owned(), flags),
        ("MESHX_EPMD_SOCKET".to_owned(), socket.display().to_string()),
    ];
    if plan.release {
        // In embedded mode the VM loads no module that its boot script does not name, so not ours
        // either. Mix reads the first, relx the second; the scripts' own `-mode` would come after
        // one in ERL_AFLAGS, and the VM would complain of two.
        for name in ["RELEASE_MODE", "CODE_LOADING_MODE"] {
            variables.push((name.to_owned(), "interactive".to_owned()));
        }
    }
    if let (NamesMode::Release, Some(node)) = (plan.mode, release_name(plan)) {
        let distribution = name_flag(node).trim_start_matches('-').to_owned();
        variables.push(("RELEASE_NODE".to_owned(), node.to_string()));
        variables.push(("RELEASE_DISTRIBUTION".to_owned(), distribution));
    }
    variables
}

fn release_name(plan: &NodePlan) -> Option<&NodeName> {
    plan.release_node.as_ref().or(plan.expected.as_ref())
}

/// The flags that undo the variable inside the VM. The old value is written as a list of numbers,
/// which no layer of quoting can change.
fn restore(theirs: Option<&str>) -> String {
    let list = |text: &str| {
        let numbers: Vec<String> = text.bytes().map(|byte| byte.to_string()).collect();
        format!("[{}]", numbers.join(","))
    };
    match theirs {
        None => " -run os unsetenv ERL_AFLAGS".to_owned(),
        Some(old) => format!(" -eval os:putenv({},{}).", list("ERL_AFLAGS"), list(old)),
    }
}

fn speaks_inet6(command: &[std::ffi::OsString], variable: &dyn Fn(&str) -> Option<String>) -> bool {
    let in_variables =
        FLAG_VARIABLES.iter().filter_map(|name| variable(name)).any(|v| v.contains("inet6_tcp"));
    in_variables || command.iter().any(|word| word.to_string_lossy().contains("inet6_tcp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aflags(name: &str, mode: NamesMode, theirs: Option<&str>) -> String {
        let plan = NodePlan {
            expected: name.parse().ok(),
            release_node: None,
            mode,
            visitor: false,
            release: false,
        };
        let get = |variable: &str| theirs.filter(|_| variable == "ERL_AFLAGS").map(str::to_owned);
        let set = environment(&plan, false, Path::new("/r/s"), Path::new("/r"), &[], &get);
        set.into_iter().find(|(name, _)| name == "ERL_AFLAGS").unwrap().1
    }

    #[test]
    fn the_host_decides_the_form_of_the_name() {
        assert!(aflags("a@h", NamesMode::Aflags, None).contains(" -sname a@h "));
        assert!(aflags("a@h.example", NamesMode::Aflags, None).contains(" -name a@h.example "));
        let v6 = aflags("a@::1", NamesMode::Aflags, None);
        assert!(v6.contains(" -name a@::1 ") && v6.contains("-proto_dist inet6_tcp"), "{v6}");
        assert!(!aflags("a@h", NamesMode::None, None).contains("name a@h"));
    }

    #[test]
    fn the_protocol_is_said_once() {
        let flags = aflags("a@::1", NamesMode::Aflags, Some("-proto_dist inet6_tcp"));
        assert_eq!(flags.matches("-proto_dist").count(), 1, "{flags}");
        assert!(flags.contains("inet_dist_use_interface {0,0,0,0,0,0,0,1}"), "{flags}");
    }

    #[test]
    fn the_users_flags_are_kept_and_put_back() {
        let flags = aflags("a@h", NamesMode::Aflags, Some("-smp +S 2"));
        assert!(flags.ends_with(" -smp +S 2"), "{flags}");
        assert!(flags.contains("os:putenv([69,82,76,"), "{flags}");
        assert!(aflags("a@h", NamesMode::Aflags, None).ends_with("-run os unsetenv ERL_AFLAGS"));
    }
}

//! `floors`: a crate may import only crates of lower floors.
//!
//! The table is the one in `ARCHITECTURE.md`. Floor 0 holds the words and the protocols; it may
//! not reach the network, the clock or the operating system either.

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::step;

/// Folder below `crates/`, floor, folders of the same floor that it may use all the same.
const FLOORS: &[(&str, u8, &[&str])] = &[
    ("core", 0, &[]),
    ("etf", 0, &["etf-derive"]),
    ("etf-derive", 0, &[]),
    ("dist", 0, &["etf"]),
    ("consul-api", 0, &["core"]),
    ("rt", 1, &[]),
    ("epmd", 1, &["rt"]),
    ("identity", 1, &["rt"]),
    ("telemetry", 1, &[]),
    ("consul", 2, &[]),
    ("proxy", 2, &[]),
    ("agent", 2, &[]),
    ("rpc", 2, &["rpc-derive"]),
    ("rpc-derive", 2, &[]),
    ("node", 2, &[]),
    ("discovery", 2, &[]),
    ("rpc-node", 3, &[]),
    ("workload", 3, &[]),
    ("dashboard", 3, &[]),
    ("meshx", 3, &[]),
    ("cli", 4, &[]),
];

/// What floor 0 may not import (tests may).
const IMPURE: &[&str] = &["tokio", "tokio-util", "hyper", "socket2", "rustix", "getrandom"];

pub(crate) fn run() -> Result<()> {
    let metadata = step::output(step::cargo().args([
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ]))?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata")?;
    let violations = violations(&metadata)?;
    if violations.is_empty() {
        return Ok(());
    }
    for violation in &violations {
        step::say(&format!("floors: {violation}"));
    }
    bail!("{} import(s) against the floors; see ARCHITECTURE.md", violations.len())
}

/// Every import that the table forbids, as a sentence.
fn violations(metadata: &Value) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    for package in packages {
        let path = package["manifest_path"].as_str().context("a package without a path")?;
        let Some(folder) = crate_folder(Path::new(path).parent()) else {
            continue; // tests, benches and chores stand outside of the house
        };
        let Some((floor, sideways)) = floor_of(folder) else {
            found.push(format!("`{folder}` has no floor: add it to the table"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let kind = Kind::of(dependency);
            let name = dependency["name"].as_str().unwrap_or_default();
            if floor == 0 && kind == Kind::Code && IMPURE.contains(&name) {
                found.push(format!("`{folder}` (floor 0) imports `{name}`: no I/O on floor 0"));
            }
            let Some(path) = dependency["path"].as_str() else { continue };
            let Some(target) = crate_folder(Some(Path::new(path))) else {
                found.push(format!("`{folder}` imports `{name}`, which is not a crate"));
                continue;
            };
            let Some((target_floor, _)) = floor_of(target) else { continue };
            let allowed = match kind {
                Kind::Code => target_floor < floor || sideways.contains(&target),
                // A test may meet a neighbour, but never someone upstairs.
                Kind::Test => target_floor <= floor,
            };
            if !allowed {
                found.push(format!(
                    "`{folder}` (floor {floor}) imports `{target}` (floor {target_floor})"
                ));
            }
        }
    }
    Ok(found)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Test,
}

impl Kind {
    fn of(dependency: &Value) -> Self {
        if dependency["kind"] == "dev" { Self::Test } else { Self::Code }
    }
}

fn floor_of(folder: &str) -> Option<(u8, &'static [&'static str])> {
    FLOORS.iter().find(|(name, ..)| *name == folder).map(|(_, floor, sideways)| (*floor, *sideways))
}

/// `x` of `…/crates/x`.
fn crate_folder(path: Option<&Path>) -> Option<&str> {
    let path = path?;
    let parent = path.parent()?.file_name()?;
    if parent == "crates" { path.file_name()?.to_str() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn workspace(folder: &str, imports: &[(&str, Option<&str>)]) -> Value {
        let dependencies: Vec<Value> = imports
            .iter()
            .map(|(name, kind)| json!({"name": name, "kind": kind, "path": format!("/w/crates/{name}")}))
            .collect();
        json!({"packages": [{
            "manifest_path": format!("/w/crates/{folder}/Cargo.toml"),
            "dependencies": dependencies,
        }]})
    }

    #[test]
    fn finds_an_import_of_a_higher_floor() {
        let found = violations(&workspace("rt", &[("core", None), ("proxy", None)])).unwrap();
        assert_eq!(found, ["`rt` (floor 1) imports `proxy` (floor 2)"]);
    }

    #[test]
    fn finds_an_import_of_the_same_floor() {
        assert_eq!(violations(&workspace("consul", &[("proxy", None)])).unwrap().len(), 1);
        assert_eq!(violations(&workspace("rt", &[("identity", None)])).unwrap().len(), 1);
    }

    #[test]
    fn lets_the_noted_neighbours_through() {
        for (folder, neighbour) in [("consul-api", "core"), ("dist", "etf"), ("identity", "rt")] {
            let found = violations(&workspace(folder, &[(neighbour, None)])).unwrap();
            assert!(found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn a_test_may_meet_a_neighbour_but_not_go_upstairs() {
        assert!(violations(&workspace("consul", &[("agent", Some("dev"))])).unwrap().is_empty());
        assert_eq!(violations(&workspace("consul", &[("cli", Some("dev"))])).unwrap().len(), 1);
        assert_eq!(violations(&workspace("consul", &[("agent", Some("build"))])).unwrap().len(), 1);
    }

    #[test]
    fn finds_a_crate_that_has_no_floor() {
        assert_eq!(violations(&workspace("attic", &[])).unwrap().len(), 1);
    }

    #[test]
    fn finds_input_and_output_on_floor_0() {
        let imports = |kind: Option<&str>| {
            json!({"packages": [{
                "manifest_path": "/w/crates/dist/Cargo.toml",
                "dependencies": [{"name": "tokio", "kind": kind}],
            }]})
        };
        assert_eq!(violations(&imports(None)).unwrap().len(), 1);
        assert!(violations(&imports(Some("dev"))).unwrap().is_empty());
    }

    #[test]
    fn what_stands_outside_of_the_house_may_import_anything() {
        let metadata = json!({"packages": [{
            "manifest_path": "/w/tests/e2e/Cargo.toml",
            "dependencies": [{"name": "meshx-cli", "kind": null, "path": "/w/crates/cli"}],
        }]});
        assert!(violations(&metadata).unwrap().is_empty());
    }

    #[test]
    fn nobody_imports_what_stands_outside() {
        let metadata = json!({"packages": [{
            "manifest_path": "/w/crates/cli/Cargo.toml",
            "dependencies": [{"name": "xtask", "kind": null, "path": "/w/xtask"}],
        }]});
        assert_eq!(violations(&metadata).unwrap().len(), 1);
    }
}

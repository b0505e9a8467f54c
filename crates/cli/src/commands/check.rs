//! `meshx check`: what is wrong, or will be. Grouped as Linkerd's check is, and its JSON has the same
//! keys.

mod erlang;
mod host;
mod mesh;
mod policy;

use serde::Serialize;

use crate::args::Check;
use crate::commands::client;
use crate::failure::{Failure, exit};
use crate::output::Output;
use crate::sidecars::Sidecars;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Success,
    Warning,
    Error,
    Skipped,
}

#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) id: String,
    pub(crate) description: String,
    pub(crate) result: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Category {
    category_name: &'static str,
    checks: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct Report {
    schema: &'static str,
    success: bool,
    categories: Vec<Category>,
}

pub(crate) fn good(id: u16, description: impl Into<String>) -> Finding {
    found(id, description, Outcome::Success, None, None)
}

pub(crate) fn bad(
    id: u16,
    result: Outcome,
    description: impl Into<String>,
    error: impl Into<String>,
    hint: impl Into<String>,
) -> Finding {
    found(id, description, result, Some(error.into()), Some(hint.into()))
}

fn found(
    id: u16,
    description: impl Into<String>,
    result: Outcome,
    error: Option<String>,
    hint: Option<String>,
) -> Finding {
    let id = meshx_core::Code(id).to_string();
    let description = description.into();
    Finding { id, description, result, error, hint: hint.filter(|hint| !hint.is_empty()) }
}

pub(crate) async fn run(arguments: &Check, output: Output) -> Result<u8, Failure> {
    let mut categories = vec![Category { category_name: "host", checks: host::checks() }];
    if arguments.pre {
        categories.push(Category { category_name: "erlang", checks: erlang::installed() });
    } else {
        let client = client(&arguments.control_plane)?;
        let (checks, reachable) = mesh::control_plane(&client).await;
        categories.push(Category { category_name: "control-plane", checks });
        if reachable {
            let sidecars = Sidecars::ask(&client).await?;
            let identity = mesh::identity(&client, &sidecars).await;
            categories.push(Category { category_name: "identity", checks: identity });
            let services = mesh::services(&client, &sidecars).await?;
            categories.push(Category { category_name: "services", checks: services });
            let mut erlang = erlang::installed();
            erlang.extend(erlang::nodes(&sidecars));
            categories.push(Category { category_name: "erlang", checks: erlang });
            let policy = policy::checks(&client, &sidecars).await?;
            categories.push(Category { category_name: "policy", checks: policy });
        } else {
            let skipped =
                found(0, "everything that needs the control plane", Outcome::Skipped, None, None);
            categories.push(Category { category_name: "mesh", checks: vec![skipped] });
        }
    }
    let count =
        |wanted| categories.iter().flat_map(|c| &c.checks).filter(|f| f.result == wanted).count();
    let (errors, warnings) = (count(Outcome::Error), count(Outcome::Warning));
    let passed = count(Outcome::Success);
    let success = errors == 0 && (warnings == 0 || !arguments.strict);
    let report = Report { schema: "meshx.check/1", success, categories };
    output.data(&report, |report| {
        let mut text = report.categories.iter().map(section).collect::<String>();
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (errors, warnings) = (count(errors, "failure"), count(warnings, "warning"));
        text.push_str(&format!("{errors}, {warnings}, {passed} passed\n"));
        text
    });
    Ok(if success { exit::SUCCESS } else { exit::NEGATIVE })
}

fn section(category: &Category) -> String {
    let mut text =
        format!("{}\n{}\n", category.category_name, "-".repeat(category.category_name.len()));
    for finding in &category.checks {
        let mark = match finding.result {
            Outcome::Success => "√",
            Outcome::Warning => "‼",
            Outcome::Error => "×",
            Outcome::Skipped => "-",
        };
        text.push_str(&format!("{mark} {}\n", finding.description));
        if let Some(error) = &finding.error {
            text.push_str(&format!("    {error}\n"));
        }
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("    hint: {hint} ({})\n", finding.id));
        }
    }
    text.push('\n');
    text
}

//! Each value that the protos promise is made by some code, or its comment says that it is not sent yet.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use token_vault_tests::files_below;

const NOT_SENT: &str = "Not sent yet";

/// Where the server makes the values of each enum: how the code writes the enum, and below which paths. A name of the
/// model is looked for outside `api/convert`, which translates every value whether it is made or not.
const MAKERS: [(&str, &[&str], &[&str]); 30] = [
    ("RequestPart.Place", &["PartPlacement"], &["provider"]),
    (
        "ErrorReason",
        &["Reason", "ProblemReason", "ErrorReason"],
        &["api/status.rs", "api/denial.rs", "model/token", "api/convert/vault_status.rs"],
    ),
    ("ExpiryEvent.Kind", &["EventKind"], &["model/event/announce.rs", "model/event/provider.rs", "vault"]),
    ("Severity", &["Severity"], &["model"]),
    ("Fixer", &["Fixer"], &["model"]),
    (
        "RefusalReason",
        &["RefusalReason", "Reason"],
        &["provider", "vault", "model/event", "model/refusal.rs"],
    ),
    ("Check.Result", &["CheckResult"], &["vault", "model"]),
    ("Token.Material", &["Material"], &["api/convert/token"]),
    ("Token.Renewal", &["Renewal"], &["model/token"]),
    ("Token.Status", &["Status"], &["model/token/status.rs"]),
    ("Token.Badge.Color", &["BadgeColor"], &["model/token"]),
    ("Subject.Type", &["SubjectType"], &["provider"]),
    ("Expiry.Kind", &["Kind"], &["api/convert/token"]),
    ("Expiry.Source", &["ExpirySource"], &["provider", "vault"]),
    ("Deadline.Kind", &["Kind"], &["api/convert/token"]),
    ("AdAccount.State", &["AdAccountState"], &["provider"]),
    ("IntakeResult.Outcome", &["IntakeOutcome"], &["vault"]),
    ("ExchangeTokenResponse.Outcome", &["ExchangeOutcome"], &["vault"]),
    ("ReportTokenErrorResponse.Verdict", &["Verdict"], &["vault"]),
    ("ReportTokenErrorResponse.Advice", &["Advice"], &["vault"]),
    ("RevokeTokenResponse.ProviderOutcome", &["ProviderOutcome"], &["vault"]),
    ("Workspace.State", &["State"], &["api/convert/workspaces.rs"]),
    ("ConnectLink.State", &["State"], &["api/convert/authorization/links.rs"]),
    ("ProviderStatus.Circuit", &["Circuit"], &["api/convert/vault_status.rs"]),
    ("ReportProviderCallbackResponse.DeletionState", &["DeletionState"], &["vault/callbacks"]),
    // A caller sends these.
    ("ReportProviderCallbackRequest.Kind", &["Kind"], &["api/convert/authorization/callbacks.rs"]),
    ("ListTokensRequest.Order", &["Order"], &["api/convert"]),
    ("WatchExpiryEventsRequest.From", &["From", "PbFrom"], &["api/convert"]),
    ("ApiKey.Role", &["Role"], &["api/convert"]),
    // The database names the state of a run.
    ("JobRun.State", &["State"], &["api/convert/jobs.rs"]),
];
/// Their values come in with a request or a row, so that a pattern names them, and no expression.
const READ: [&str; 5] = [
    "ListTokensRequest.Order",
    "ReportProviderCallbackRequest.Kind",
    "WatchExpiryEventsRequest.From",
    "ApiKey.Role",
    "JobRun.State",
];

/// A value of an enum, as the proto files describe it.
struct Value {
    of: String,
    name: String,
    is_promised: bool,
}

/// All values but those with the number 0, which stand for "not set".
fn values(text: &str) -> Vec<Value> {
    let (mut values, mut open, mut comment) = (Vec::new(), Vec::<(String, bool, bool)>::new(), String::new());
    for line in text.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("//") {
            comment.push_str(words);
            continue;
        }
        let mut words = line.split_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some(_), Some(name), _) if line.ends_with('{') => {
                let not_sent = comment.contains(NOT_SENT) || open.iter().any(|(_, _, not_sent)| *not_sent);
                open.push((name.to_owned(), line.starts_with("enum "), not_sent));
            }
            (Some(_), _, _) if line.ends_with('{') => open.push((String::new(), false, false)),
            (Some("}"), ..) => drop(open.pop()),
            (Some(name), Some("="), Some(number)) => {
                if let Some((of, true, not_sent)) = open.last()
                    && number != "0;"
                {
                    let prefix = format!("{}_", shouted(of));
                    let name = camel(name.strip_prefix(&prefix).unwrap_or(name));
                    let of = open.iter().map(|(name, ..)| name.as_str()).collect::<Vec<_>>().join(".");
                    values.push(Value { of, name, is_promised: !not_sent && !comment.contains(NOT_SENT) });
                }
            }
            _ => {}
        }
        comment.clear();
    }
    values
}

/// `ErrorReason` as `ERROR_REASON`.
fn shouted(name: &str) -> String {
    let mut shouted = String::new();
    for (at, character) in name.char_indices() {
        if at > 0 && character.is_uppercase() {
            shouted.push('_');
        }
        shouted.extend(character.to_uppercase());
    }
    shouted
}

/// `NOT_FOUND` as `NotFound`.
fn camel(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        format!("{first}{}", rest.to_lowercase())
    });
    words.collect()
}

/// Whether a line makes the value: it names it, and not on the left of an arrow.
fn makes(line: &str, qualifier: &str, name: &str, patterns_count: bool) -> bool {
    let path = format!("{qualifier}::{name}");
    line.match_indices(&path).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + path.len()..]);
        let ends_here = |c: char| !(c.is_alphanumeric() || c == '_');
        let whole = before.chars().next_back().is_none_or(|c| ends_here(c) || c == ':')
            && after.chars().next().is_none_or(ends_here);
        let is_pattern = after.contains("=>") || before.trim_end().ends_with('|') || after.trim() == "|";
        whole && (patterns_count || !is_pattern)
    })
}

#[test]
fn each_value_is_made_or_says_that_it_is_not_sent() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate stands in the workspace");
    let source: BTreeMap<PathBuf, String> = files_below(&root.join("server/src"))
        .into_iter()
        .filter(|path| path.extension().is_some_and(|end| end == "rs"))
        .filter(|path| !path.components().any(|part| part.as_os_str().to_string_lossy().contains("tests")))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("source is text");
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            (path.strip_prefix(root.join("server/src")).expect("it lies below").to_owned(), text)
        })
        .collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for file in files_below(&root.join("proto/tokenvault/v1")) {
        for value in values(&fs::read_to_string(file).expect("protos are text")) {
            seen += 1;
            let Some((_, qualifiers, places)) = MAKERS.iter().find(|(of, ..)| *of == value.of) else {
                wrong.push(format!("{} is new: say in MAKERS where it is made", value.of));
                continue;
            };
            let patterns_count = READ.contains(&value.of.as_str());
            let made = source
                .iter()
                .filter(|(path, _)| places.iter().any(|place| path.starts_with(place)))
                .flat_map(|(_, text)| text.lines())
                .any(|line| qualifiers.iter().any(|q| makes(line, q, &value.name, patterns_count)));
            match (made, value.is_promised) {
                (false, true) => wrong.push(format!("{} {} is made by no code", value.of, value.name)),
                (true, false) => wrong.push(format!("{} {} is sent after all", value.of, value.name)),
                _ => {}
            }
        }
    }
    assert!(seen > 150, "the protos are not where they were: {seen} values");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

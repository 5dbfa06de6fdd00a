//! What a person can decide at the dialog, and what the redirect then carries.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a person decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Grants everything that is asked for.
    Allow,
    /// Grants everything except these.
    AllowExcept(Vec<String>),
    /// Grants everything, for these ad accounts only. This holds for every token of the person and the app, earlier
    /// ones too.
    AllowAdAccounts(Vec<String>),
    /// Grants some scopes, for some ad accounts.
    Pick(Pick),
    /// Cancels.
    Deny,
    /// As `Deny`, in the older words.
    DenyOlder,
    /// The person agreed, and still comes back as if not: in development mode, without a role in the app.
    RoleMissing,
    /// No decision is possible, since the dialog is configured wrong (the redirect has no `error`).
    Misconfigured,
    /// A redirect with neither code nor error, as has been observed.
    Nothing,
    /// Grants everything, and the code has expired before it arrives.
    ExpiredCode,
    /// Grants everything, and somebody has used the code before it arrives.
    UsedCode,
    /// Grants everything, and the code is none that was ever issued.
    MalformedCode,
    /// Grants everything, and the code belongs to another redirect URI, as one from the JavaScript SDK.
    ForeignCode,
}

/// A part of what the dialog offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pick {
    /// Which of the scopes that are asked for; unset is all.
    pub scopes: Option<Vec<String>>,
    /// Which ad accounts, with or without `act_`. All of them means those of later too. Unset leaves it as it is.
    pub ad_accounts: Option<Vec<String>>,
}

/// What is wrong with a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    None,
    Expired,
    Used,
    Malformed,
    Foreign,
}

impl Decision {
    /// The decision without parameters that has this JSON name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        serde_json::from_value(Value::String(name.to_owned())).ok()
    }

    /// What is granted of the scopes that are asked for, and how the code is. `None` if no code comes.
    pub(crate) fn agreement(&self, asked: &[String]) -> Option<(Pick, Flaw)> {
        let all = |flaw| Some((Pick::default(), flaw));
        match self {
            Self::Allow => all(Flaw::None),
            Self::ExpiredCode => all(Flaw::Expired),
            Self::UsedCode => all(Flaw::Used),
            Self::MalformedCode => all(Flaw::Malformed),
            Self::ForeignCode => all(Flaw::Foreign),
            Self::AllowExcept(names) => Some((Pick::except(asked, names), Flaw::None)),
            Self::AllowAdAccounts(ids) => {
                Some((Pick { ad_accounts: Some(ids.clone()), ..Pick::default() }, Flaw::None))
            }
            Self::Pick(pick) => Some((pick.clone(), Flaw::None)),
            Self::Deny | Self::DenyOlder | Self::RoleMissing | Self::Misconfigured | Self::Nothing => None,
        }
    }

    /// What the redirect carries in place of a code.
    pub(crate) fn refusal(&self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Deny => &[
                ("error", "access_denied"),
                ("error_code", "200"),
                ("error_description", "Permissions error"),
                ("error_reason", "user_denied"),
            ],
            Self::DenyOlder => &[
                ("error", "access_denied"),
                ("error_code", "200"),
                ("error_description", "The user denied your request."),
                ("error_reason", "user_denied"),
            ],
            Self::RoleMissing => &[
                ("error", "access_denied"),
                ("error_code", "200"),
                ("error_description", "Permissions error"),
            ],
            Self::Misconfigured => &[
                ("error_code", "1349048"),
                (
                    "error_message",
                    "Can't load URL: The domain of this URL isn't included in the app's domains.",
                ),
            ],
            _ => &[],
        }
    }
}

impl Pick {
    /// All scopes except these.
    pub(crate) fn except(asked: &[String], names: &[String]) -> Self {
        let scopes = asked.iter().filter(|scope| !names.contains(scope)).cloned().collect();
        Self { scopes: Some(scopes), ad_accounts: None }
    }

    pub(crate) fn has(&self, scope: &str) -> bool {
        self.scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|one| one == scope))
    }
}

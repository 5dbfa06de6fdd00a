//! Every English text of the portal, in one place so that it can be translated. The vault's own sentences, such as the
//! remedies, are shown as they come.

use token_vault_client::v1::{ErrorReason, Fixer, RefusalReason, Severity, ad_account, check};

use crate::notice::{Notice, Tone};

pub(crate) const LANGUAGE: &str = "en";
/// How a moment is written, in UTC.
pub(crate) const TIME: &str = "%-d %B %Y, %H:%M UTC";

// The card.

pub(crate) fn card_title(provider: &str, workspace: &str) -> String {
    format!("{provider} for {workspace}")
}
pub(crate) fn page_title(title: &str, brand: &str) -> String {
    format!("{title} · {brand}")
}
pub(crate) fn intro(provider: &str, workspace: &str, brand: &str) -> String {
    format!(
        "Through this connection, {brand} works with your ads at {provider} for {workspace}. You can end it at any time \
         in the settings of your {provider} account."
    )
}
pub(crate) const NO_CONNECTION: &str = "Nothing is connected yet";
pub(crate) fn no_connection(provider: &str) -> String {
    format!(
        "When you press the button, {provider} asks you what to share. Nothing happens before you agree there."
    )
}
pub(crate) fn connect(provider: &str) -> String {
    format!("Connect {provider}")
}
pub(crate) const ANOTHER: &str = "Another account";
pub(crate) fn connect_another(provider: &str) -> String {
    format!("Connect another {provider} account")
}
pub(crate) fn reconnect(provider: &str) -> String {
    format!("Reconnect {provider}")
}
pub(crate) const CHECK_NOW: &str = "Check now";
pub(crate) const PASTE: &str = "Paste a token instead";
pub(crate) const PASTE_LABEL: &str = "Access token";
pub(crate) const PASTE_HELP: &str = "For administrators who made a token by hand. It is sent to the vault, checked there, and never shown again.";
pub(crate) const PASTE_BUTTON: &str = "Store token";
pub(crate) const UNNAMED: &str = "An account without a name";
pub(crate) const STATUS: &str = "Status";
pub(crate) const CONNECTED_AS: &str = "Connected as";
pub(crate) const TOKEN_ENDS: &str = "Connection ends";
pub(crate) const DATA_ACCESS_ENDS: &str = "Data access ends";
pub(crate) const LAST_CHECKED: &str = "Last checked";
pub(crate) const NEVER_ENDS: &str = "never";
pub(crate) const END_UNKNOWN: &str = "not known";
pub(crate) const NEVER_CHECKED: &str = "never";
pub(crate) const PROBLEMS: &str = "What needs attention";
pub(crate) const WHO: &str = "Who can help: ";
pub(crate) const HOW: &str = "What to do: ";
pub(crate) const WHERE: &str = "Open the page where to do it";
pub(crate) const GRANTED: &str = "Permissions granted";
pub(crate) const MISSING: &str = "Permissions missing";
pub(crate) const MISSING_REQUIRED: &str = "needed";
pub(crate) const MISSING_OPTIONAL: &str = "optional";
pub(crate) const WILL_ASK: &str = "What you will be asked for";
pub(crate) const NONE: &str = "None";
pub(crate) const CHECKS: &str = "What the check found";
pub(crate) fn checks_of(account: &str) -> String {
    format!("What the check of {account} found")
}
pub(crate) fn ad_accounts(count: usize) -> String {
    format!("Ad accounts ({count})")
}
pub(crate) fn left_out(count: i32) -> String {
    format!("… and {count} more")
}
pub(crate) const REACHABLE: &str = "reachable";
pub(crate) const WAS_REACHABLE: &str = "was reachable";
pub(crate) const UNREACHABLE: &str = "not reachable";
pub(crate) const USED: &str = "This link has been used, so nothing more can be connected with it. Ask whoever sent it for a new one if you need it.";
pub(crate) const OPEN_CARD: &str = "Open in a new tab";
pub(crate) fn continue_to(host: &str) -> String {
    format!("Continue to {host}")
}
pub(crate) fn back_to(host: &str) -> String {
    format!("Back to {host}")
}
pub(crate) fn leaving(provider: &str) -> String {
    format!("Taking you to {provider} …")
}
pub(crate) fn leaving_help(provider: &str) -> String {
    format!("{provider} asks you there what to share, and then sends you back here.")
}
pub(crate) fn go_on(provider: &str) -> String {
    format!("Continue to {provider}")
}

// Words for what the vault says in codes.

pub(crate) fn provider(id: &str) -> String {
    match id {
        "meta" => "Meta",
        "google_ads" => "Google Ads",
        "tiktok" => "TikTok",
        "linkedin" => "LinkedIn",
        "pinterest" => "Pinterest",
        "snapchat" => "Snapchat",
        "x" => "X",
        other => other,
    }
    .to_owned()
}

/// A scope in plain words; `None` for one that is shown by its name alone.
pub(crate) fn scope(name: &str) -> Option<&'static str> {
    Some(match name {
        "ads_read" => "Read your ads and their results",
        "ads_management" => "Manage your ads and see your ad accounts",
        "business_management" => "See your businesses and the ad accounts that they own",
        "read_insights" => "Read statistics of your pages and apps",
        "pages_show_list" => "See which pages you manage",
        "pages_read_engagement" => "Read posts and reactions of your pages",
        "pages_manage_ads" => "Manage the ads of your pages",
        "pages_manage_metadata" => "Change the settings of your pages",
        "leads_retrieval" => "Read the leads that your ads collect",
        "catalog_management" => "Manage your product catalogues",
        "instagram_basic" => "See your Instagram account",
        "instagram_manage_insights" => "Read statistics of your Instagram account",
        "public_profile" => "See your name and picture",
        "email" => "See your e-mail address",
        _ => return None,
    })
}

pub(crate) fn who(fixer: Fixer, provider: &str, brand: &str) -> Option<String> {
    Some(match fixer {
        Fixer::WorkspaceOwner => "you, or whoever else may connect this account".to_owned(),
        Fixer::Operator => format!("the people who run {brand}"),
        Fixer::AppAdmin => format!("the people who run {brand}, in the settings of its app at {provider}"),
        Fixer::AdAccountAdmin => {
            format!("the administrator of the ad account, or of its business, at {provider}")
        }
        Fixer::Nobody => "nobody needs to act; it passes by itself".to_owned(),
        Fixer::Unspecified => return None,
    })
}

/// What to do, for the person who has the buttons before them. The vault's own sentences speak to a third person. `None`
/// where those are better, because the remedy is not on this page.
pub(crate) fn action_here(reason: ErrorReason, provider: &str) -> Option<String> {
    use ErrorReason as R;
    match reason {
        R::ScopesMissing | R::OptionalScopesMissing => {
            Some(format!("Press “Reconnect {provider}” and leave all permissions switched on."))
        }
        R::DataAccessEnding => {
            Some(format!("Press “Reconnect {provider}” and confirm that the data may be read."))
        }
        R::TokenExpired | R::TokenInvalid | R::ReauthorizationRequired | R::ExpiringSoon | R::AtCeiling => {
            Some(format!("Press “Reconnect {provider}” and agree again."))
        }
        _ => None,
    }
}

pub(crate) const fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "Urgent",
        Severity::Warning => "Soon",
        Severity::Info | Severity::Unspecified => "For information",
    }
}

pub(crate) const fn check_result(result: check::Result) -> &'static str {
    match result {
        check::Result::Pass => "In order",
        check::Result::Warn => "Needs attention",
        check::Result::Fail => "Does not work",
        check::Result::Unknown | check::Result::Unspecified => "Could not be checked",
        check::Result::Skipped => "Not checked",
    }
}

/// The name of a check; one that is newer than this portal is shown by its own name.
pub(crate) fn check_name(name: &str) -> String {
    match name {
        "token_accepted" => "The token is accepted",
        "app_matches" => "It was made for the right app",
        "required_scopes" => "Needed permissions",
        "optional_scopes" => "Optional permissions",
        "expiry" => "End of the connection",
        "data_access" => "Data access",
        "ad_accounts" => "Ad accounts",
        "smoke_test" => "Reading real data",
        "call_budget" => "Limit of calls",
        "pages" => "Pages",
        other => return other.replace('_', " "),
    }
    .to_owned()
}
pub(crate) fn rows_read(rows: u64) -> String {
    match rows {
        1 => "1 row read".to_owned(),
        rows => format!("{rows} rows read"),
    }
}

pub(crate) const fn account_state(state: ad_account::State) -> &'static str {
    match state {
        ad_account::State::Active => "active",
        ad_account::State::Limited => "restricted",
        ad_account::State::Disabled => "disabled",
        ad_account::State::Closed => "closed",
        ad_account::State::Unknown | ad_account::State::Unspecified => "state not known",
    }
}

fn refusal(reason: Option<RefusalReason>, provider: &str) -> String {
    use RefusalReason as R;
    match reason.unwrap_or(R::Unspecified) {
        R::Expired => "It has expired.".to_owned(),
        R::PasswordChanged => "The password was changed after it was made.".to_owned(),
        R::AppRemoved => "The app was removed from the account.".to_owned(),
        R::Checkpoint => format!("{provider} asks for a security check first: log in there and follow it."),
        R::UnconfirmedAccount => format!("The account at {provider} is not confirmed yet."),
        R::LoggedOut => "The person logged out, which ended it.".to_owned(),
        R::RevokedAtProvider => format!("It was revoked at {provider}."),
        R::UnusedTooLong => "It was not used for too long.".to_owned(),
        R::DataAccessLapsed => "The permission to read data has lapsed.".to_owned(),
        R::RoleLost => "The person has lost the role that it needs.".to_owned(),
        R::PolicyBlocked => format!("{provider} blocked the person or the app. Read its notice there."),
        R::AdminPolicy => "A rule of an administrator forbids it.".to_owned(),
        R::WrongApp => "It was made for another app.".to_owned(),
        R::Malformed => format!("{provider} does not recognise it as a token."),
        R::PermissionRefused => "A permission that it lists is refused.".to_owned(),
        R::Unknown | R::Unspecified => format!("{provider} gives no reason."),
    }
}

// Notices: what happened, in one title and one sentence, who can help, and what to do.

pub(crate) const fn tone(tone: Tone) -> &'static str {
    match tone {
        Tone::Good => "Done",
        Tone::Neutral => "Note",
        Tone::Bad => "Problem",
    }
}

pub(crate) fn connected(provider: &str) -> Notice {
    Notice::new(Tone::Good, format!("{provider} is connected"), "You can close this page.")
}
pub(crate) fn connected_with_problems(provider: &str) -> Notice {
    let text = "It is stored, but something does not work yet. The results below say what, and who can help.";
    Notice::new(Tone::Neutral, format!("{provider} is connected, with a problem"), text)
}
pub(crate) fn checked() -> Notice {
    Notice::new(Tone::Good, "Checked just now", "The results are below.")
}
pub(crate) fn link_is_over() -> Notice {
    Notice::new(Tone::Bad, "This link is not valid any more", "Ask whoever sent it for a new one.")
}
pub(crate) fn start_again() -> Notice {
    let text = "This browser does not know your link here: cookies may be off, or too much time has passed.";
    Notice::new(Tone::Bad, "Start again from your link", text)
        .action("Open the link that you were sent once more, in this browser.")
}
pub(crate) fn embed_without_cookie() -> Notice {
    let text = "Open the link that you were sent in this browser, and then load this page again.";
    Notice::new(Tone::Neutral, "The connection can't be shown here", text)
}
pub(crate) fn deletion_received() -> Notice {
    Notice::new(
        Tone::Neutral,
        "Your request was received",
        "Your data is being deleted. Load this page again in a minute.",
    )
}
pub(crate) fn deletion_done() -> Notice {
    Notice::new(Tone::Good, "Your data is deleted", "Nothing more is to be done.")
}
pub(crate) fn deletion_unknown() -> Notice {
    Notice::new(
        Tone::Bad,
        "There is no such request",
        "Please check the address, or the confirmation code that you were given. A request is shown for a year.",
    )
}
pub(crate) fn not_found() -> Notice {
    Notice::new(Tone::Bad, "There is no such page", "Open the link that you were sent.")
}
pub(crate) fn method_not_allowed() -> Notice {
    Notice::new(Tone::Bad, "This page can't do that", "Open the link that you were sent.")
}
pub(crate) fn foreign_form() -> Notice {
    let text = "For your safety, nothing was done: the request did not come from this page, or the page was too old.";
    Notice::new(Tone::Bad, "Please press the button again", text)
        .action("Open the link that you were sent, and try once more.")
}
pub(crate) fn bad_form() -> Notice {
    Notice::new(Tone::Bad, "The request could not be read", "Nothing was done. Go back and try once more.")
}
pub(crate) fn form_too_large() -> Notice {
    Notice::new(
        Tone::Bad,
        "That text is too long",
        "A token has at most 4,096 characters. Nothing was stored.",
    )
}
pub(crate) fn no_token() -> Notice {
    Notice::new(Tone::Bad, "No token was pasted", "Nothing was stored.")
        .action("Paste the token into the field.")
}
pub(crate) fn link_is_used() -> Notice {
    Notice::new(Tone::Bad, "This link has been used", "Nothing was done. Ask whoever sent it for a new one.")
}
pub(crate) fn too_many_requests() -> Notice {
    Notice::new(Tone::Bad, "Too many requests", "Nothing was done.").action("Wait a minute, and try again.")
}
pub(crate) fn too_late() -> Notice {
    Notice::new(Tone::Bad, "This took too long", "It may still have worked.")
        .action("Load this page again in a minute.")
}
pub(crate) fn faulty() -> Notice {
    Notice::new(Tone::Bad, "Something went wrong here", "It is not your fault.").help(Fixer::Operator)
}

/// What a denial of the vault, or a failed authorization, means for the person.
pub(crate) fn trouble(reason: Option<ErrorReason>, provider: &str) -> Notice {
    use ErrorReason as R;
    let bad = |title: String, text: &str| Notice::new(Tone::Bad, title, text);
    let unchanged = "Nothing was changed.";
    let again = format!("Press “Connect {provider}” or “Reconnect {provider}” once more.");
    let Some(reason) = reason else { return faulty() };
    match reason {
        R::AuthorizationDeclined => bad(
            "The connection was declined".into(),
            "The request was declined or closed, so nothing was changed.",
        )
        .help(Fixer::WorkspaceOwner)
        .action(format!("{again} Then agree to what {provider} asks.")),
        R::AuthorizationStateInvalid => bad(
            "Please begin again".into(),
            "For your safety, an attempt works once, within ten minutes, and in the browser that began it.",
        )
        .help(Fixer::WorkspaceOwner)
        .action(again),
        R::ScopesMissing => bad(
            "A permission is missing".into(),
            "Nothing was stored, because not everything that is needed was granted.",
        )
        .help(Fixer::WorkspaceOwner)
        .action(format!("{again} Leave all permissions switched on.")),
        R::ScopesShrunk => bad(
            "Fewer permissions than before".into(),
            "The earlier connection stays as it is, because the new one may do less.",
        )
        .help(Fixer::WorkspaceOwner)
        .action(format!("{again} Leave all permissions switched on.")),
        R::SubjectMismatch => bad(
            "Another person came back".into(),
            "The connection belongs to another account, so it was left as it is.",
        )
        .help(Fixer::WorkspaceOwner)
        .action(format!("Log in at {provider} as the person who connected it before. {again}")),
        R::SubjectAlreadyConnected => {
            bad("This account is already connected".into(), "It has a connection of its own here.")
                .help(Fixer::WorkspaceOwner)
                .action("Reconnect that connection instead.")
        }
        R::TokenMalformed => bad("That text is no token".into(), "Nothing was stored.")
            .help(Fixer::WorkspaceOwner)
            .action("Paste the token alone, without quotation marks, spaces or other words."),
        R::TokenOfOtherApp => bad(
            "This token belongs to another app".into(),
            "Nothing was stored, because the token was made for another app than the one that is used here.",
        )
        .help(Fixer::WorkspaceOwner)
        .action(format!("{again} That always makes a token for the right app.")),
        R::ProviderRefusedToken => bad(format!("{provider} refuses this token"), "Nothing was stored.")
            .help(Fixer::WorkspaceOwner)
            .action(format!("Paste a new token, or connect without one. {again}")),
        R::ProviderMisconfigured => bad(
            format!("The connection to {provider} is not set up correctly"),
            "This is not your fault, and trying again does not help.",
        )
        .help(Fixer::Operator),
        R::ProviderUnavailable => bad(format!("{provider} does not answer"), unchanged)
            .help(Fixer::Nobody)
            .action("Try again in a few minutes."),
        R::ProviderThrottled | R::CallBudgetExhausted => bad(
            format!("{provider} asks us to wait"),
            "It received too many requests, so nothing was changed.",
        )
        .help(Fixer::Nobody)
        .action("Try again in a few minutes."),
        R::RateLimited => too_many_requests(),
        R::ConnectLinkNotFound => link_is_over(),
        R::ConnectionNotFound | R::TokenRevoked => {
            bad("This connection is not there any more".into(), unchanged)
                .action("Load this page again, and connect anew.")
        }
        R::TokenVersionMismatch | R::RequestInProgress => {
            bad("Something else is changing this connection".into(), unchanged)
                .action("Load this page again in a minute.")
        }
        R::WorkspaceShredded | R::WorkspaceNotFound => {
            bad("This workspace was closed".into(), "Nothing can be connected to it any more.")
                .help(Fixer::Operator)
        }
        _ if reason_is_passing(reason) => unavailable(),
        _ => faulty(),
    }
}

pub(crate) fn unavailable() -> Notice {
    Notice::new(Tone::Bad, "The service does not answer right now", "It will be back.")
        .help(Fixer::Nobody)
        .action("Load this page again in a minute.")
}
pub(crate) const CALL_BACK_AGAIN: &str = "Load this page again in a minute. You need not agree once more.";

/// The sentences that say why, where the vault gives details.
pub(crate) fn refused_because(reason: Option<RefusalReason>, provider: &str) -> String {
    format!("Nothing was stored. {}", refusal(reason, provider))
}

/// Whether the vault itself can't answer for a while.
pub(crate) const fn reason_is_passing(reason: ErrorReason) -> bool {
    use ErrorReason as R;
    matches!(
        reason,
        R::StorageUnavailable
            | R::KeyServiceUnavailable
            | R::AuditUnavailable
            | R::ShuttingDown
            | R::IdentityProviderUnavailable
    )
}

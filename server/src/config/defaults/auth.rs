//! Who may call, besides by API keys: certificates and tokens of an issuer.

use super::{FILE, TEXT};
use crate::config::declare::{setting, settings};
use crate::config::values::{Checked, Choice, FilePath, Length, List, SecureUrl, Switch, Tables, Verbatim};
use crate::oidc::Signing;

settings! {
    ["auth"] {
        /// A file with an admin key (`tva_…`) that the first start adopts instead of making one.
        BOOTSTRAP_KEY_FILE: FilePath = setting("auth.bootstrap_key_file", FILE)
            .unset("the first start makes one", "\"bootstrap-admin.key\"");
        /// Which client certificate is which principal: `san` is a URI or DNS name among the certificate's subject
        /// alternative names, compared as a whole; `role` is connector, ingestion, alerting, viewer, admin or portal;
        /// `workspaces` is a list, or `"all"`. Needs `server.tls.client_auth`.
        CERTIFICATES: Tables = setting("auth.certificates", Tables(&["san", "principal", "role", "workspaces"])).unset(
            "none",
            "[{ san = \"spiffe://acme/ingestion\", principal = \"ingestion\", role = \"ingestion\", workspaces = [\"acme\"] }]",
        );
    }

    /// Callers may come with a token (JWT) of your own OpenID Connect issuer instead of an API key.
    ["auth.oidc"] {
        /// The issuer, exactly as in the token's `iss`.
        OIDC_ISSUER: Verbatim<SecureUrl> = setting("auth.oidc.issuer", Verbatim(ISSUER)).unset("no tokens are accepted", "\"https://login.acme.example/realms/prod\"");
        /// What the token's `aud` must contain. Needed with an issuer.
        OIDC_AUDIENCE: Checked<String> = setting("auth.oidc.audience", TEXT).unset("none", "\"token-vault\"");
        /// Where the issuer's keys are.
        OIDC_JWKS_URI: SecureUrl = setting("auth.oidc.jwks_uri", ISSUER)
            .unset("found by discovery", "\"https://login.acme.example/realms/prod/certs\"");
        /// PEM file with the certificates to trust instead of the system's.
        OIDC_CA_FILE: FilePath = setting("auth.oidc.ca_file", FILE).unset("the system's", "\"issuer-ca.crt\"");
        /// How tokens may be signed.
        OIDC_ALGORITHMS: List<Choice<Signing>> = setting("auth.oidc.algorithms", List { each: SIGNINGS, plural: "RS256, ES256 and EdDSA", most: None })
            .entries(&["RS256", "ES256", "EdDSA"]);
        /// How far the issuer's clock may be off.
        OIDC_LEEWAY: Length = setting("auth.oidc.leeway", Length("0s", "5m")).default("30s");
        /// The claim with the principal's name.
        OIDC_PRINCIPAL_CLAIM: Checked<String> = setting("auth.oidc.principal_claim", CLAIM).default("sub");
        /// The claim with the role; a dot leads into an object.
        OIDC_ROLE_CLAIM: Checked<String> = setting("auth.oidc.role_claim", CLAIM).default("roles");
        /// Which value of the role claim is which role: connector, ingestion, alerting, viewer, admin or portal. A token must
        /// mean exactly one role.
        OIDC_ROLES: Tables = setting("auth.oidc.roles", Tables(&["value", "role"]))
            .unset("none; needed with an issuer", "[{ value = \"vault-ingestion\", role = \"ingestion\" }]");
        /// The claim with the workspaces. Set this or `all_workspaces`.
        OIDC_WORKSPACES_CLAIM: Checked<String> = setting("auth.oidc.workspaces_claim", CLAIM).unset("none", "\"groups\"");
        /// Which value of the workspaces claim is which workspaces.
        OIDC_WORKSPACES: Tables = setting("auth.oidc.workspaces", Tables(&["value", "workspaces"]))
            .unset("the claim's values are the workspaces' ids", "[{ value = \"eu\", workspaces = [\"acme\", \"globex\"] }]");
        /// Every token may act in all workspaces; set instead of `workspaces_claim` and `workspaces`.
        OIDC_ALL_WORKSPACES: Switch = setting("auth.oidc.all_workspaces", Switch).default("false");
        /// How often the issuer's keys are read.
        OIDC_REFRESH: Length = setting("auth.oidc.refresh", Length("1s", "24h")).default("5m");
        /// The shortest time between two reads, even when a token names a key that is not known.
        OIDC_REFRESH_AT_MOST_EVERY: Length = setting("auth.oidc.refresh_at_most_every", Length("100ms", "1h")).default("10s");
        /// How long known keys are used while the issuer does not reply. At least `refresh`.
        OIDC_STALE_FOR: Length = setting("auth.oidc.stale_for", Length("1s", "7d")).default("1h");
    }
}

const SIGNINGS: Choice<Signing> =
    Choice(&[("RS256", Signing::Rs256), ("ES256", Signing::Es256), ("EdDSA", Signing::EdDsa)]);

const ISSUER: SecureUrl = SecureUrl { query: true, example: "https://login.example" };

const CLAIM: Checked<String> = Checked { allowed: "the name of a claim", such_as: "", parse: claim };

fn claim(text: &str) -> Option<String> {
    (text.len() <= 128 && text.bytes().all(|b| b.is_ascii_graphic())).then(|| text.to_owned())
}

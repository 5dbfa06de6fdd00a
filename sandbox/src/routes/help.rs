//! The text of `GET /_sandbox`.

/// How to use the sandbox from a terminal.
pub(crate) fn text(url: &str, app_id: &str, secret: &str) -> String {
    format!(
        r#"Graph API sandbox. It replaces graph.facebook.com and the login dialog; nothing here is Meta's.
Graph and dialog are both at {url}, with or without a version (/v26.0/me).
App {app_id}, secret {secret}.

Control, all JSON:
  POST   /_sandbox/users                 {{"name":"ana","grants":["ads_read","ads_management"],"declines":["business_management"],
                                           "ad_accounts":3,"pages":["Shop"],"system":false}}   -> id, accounts, tokens
                                         "ad_accounts" may be a list: [{{"id":"1020304050","status":1,"delivers":false,
                                         "business":["777000111","Shop"],"owner_hidden":true}}]; accounts that only a
                                         business lists: "businesses":[{{"id":"888","name":"Agency","owned":[{{}}],"clients":[]}}]
  GET    /_sandbox/users                 all of them
  POST   /_sandbox/users/ana/tokens      {{"kind":"short_lived"}} or long_lived, never, debug_only, {{"page":"Shop"}};
                                         also "life_seconds", "app_id", "scopes", "length"       -> token
  POST   /_sandbox/users/ana/actions     {{"action":"changes_password"}} or removes_app, logs_out, hits_checkpoint
                                         ("seconds" lets it heal), heals, data_access_lapses,
                                         falls_into ("subcode"), grants / declines / lets_expire / forgets ("names"),
                                         inspector_says_valid, inspector_says_dead ("subcode") (both until heals),
                                         ticks ("names": the ad accounts that the app keeps), leaves_business ("names": its id)
                                         (a system user: add ?system=true)
  POST   /_sandbox/tokens/kill           {{"token":"EAA...","subcode":460}}      (no subcode: a bare 190)
  POST   /_sandbox/tokens/expire         {{"token":"EAA..."}}, or with "expires_at": unix seconds, 0 = never
  POST   /_sandbox/tokens/revive         {{"token":"EAA..."}}
  GET    /_sandbox/apps
  POST   /_sandbox/apps                  {{"id":"999","secrets":["s"],"name":"Other","require_proof":true}}  adds or replaces;
                                         "blocked":"blocked" or "disrupted" refuses every call, null ends this
  POST   /_sandbox/consent               {{"dialog_url":"{url}/v26.0/dialog/oauth?...","user":"ana","decision":"allow"}}
                                         or {{"allow_except":["ads_read"]}}, {{"allow_ad_accounts":["1020304050"]}},
                                         {{"pick":{{"scopes":["ads_read"],"ad_accounts":["1020304050"]}}}}, "deny", "deny_older",
                                         "role_missing", "misconfigured", "nothing"; or a code that is no good: "expired_code",
                                         "used_code", "malformed_code", "foreign_code"  -> location
  POST   /_sandbox/callbacks             {{"kind":"deauthorize","user":"ana","url":"http://127.0.0.1:8080/hook"}} sends it at once;
                                         kinds: deauthorize, data_deletion, webhook, subscription, probe. No "url": that of the
                                         switches deauthorize_url, data_deletion_url, webhook_url. "sign": "right", "wrong",
                                         "missing" or {{"app":"999"}} (that app's secret); "times":2, "delay_seconds":0.5,
                                         "age_seconds":604800, "user_id", "app_id", "algorithm", "expires"; a webhook:
                                         "changes":[{{"field":"ads_read","value":{{"verb":"revoked"}}}}] or "body" (raw);
                                         a subscription: "verify_token", "challenge", "mode"  -> deliveries, with each "answer"
  POST   /_sandbox/signed_request        {{"user":"ana"}}                        -> signed_request
  POST   /_sandbox/faults                {{"on":"insights","times":2,"token":null,"path":null,"skip":0,
                                           "with":{{"graph_error":{{"http":400,"code":190,"subcode":463}}}}}}
                                         "times": null is forever. "on": any, oauth_access_token, debug_token, me,
                                         permissions, ad_accounts, ad_account, businesses,
                                         business_ad_accounts, insights, accounts, revoke, dialog, object
                                         "with", one or a list: {{"html":{{"status":502}}}}, {{"text":{{"status":503,"text":"busy"}}}},
                                         "empty_body", "body_false", "body_true", "error_as_string", "truncated", "reset",
                                         "reset_after", "reset_mid_body", {{"stall_first_byte":2.5}}, "hang", {{"stall_body":2.5}},
                                         {{"slow_body":2.5}}, "wrong_content_type", "no_content_type", {{"oversized_body":1000000}},
                                         {{"redirect":"https://..."}}, {{"headers":[["x-app-usage","{{"]]}}, {{"without_header":"..."}},
                                         {{"expires_in":null}}, {{"expires_in_json":"5183944"}}, "query_string_token",
                                         {{"expires_at":0}}, {{"subject":"1"}}, {{"app_id":"1"}}, {{"scopes":[]}}, {{"is_valid":false}},
                                         {{"set":["/data/0/id",1]}}, {{"set_raw":["/data/0/id","1e21"]}},
                                         "gzip", "unknown_keys", {{"then_kill":460}}
  GET    /_sandbox/faults, DELETE /_sandbox/faults
  GET    /_sandbox/requests, DELETE /_sandbox/requests      what clients sent
  GET    /_sandbox/clock                 now (seconds), now_us (microseconds) and speed
  POST   /_sandbox/clock                 {{"advance_seconds":86400}}, {{"set":1763859600}}, {{"speed":86400}} (simulated
                                         seconds per real second), {{"freeze":true}} (as speed 0) or {{"reset":true}}
  POST   /_sandbox/usage                 {{"scope":"app","percent":85.5}}; scopes: "app", "app_insights",
                                         {{"ad_account":"1020304050"}}, {{"use_case":{{"id":"1020304050","kind":"ads_insights"}}}}
                                         blocked from 100 % on, or for the "block_seconds" given in place of "percent".
  DELETE /_sandbox/usage
  GET    /_sandbox/switches
  POST   /_sandbox/switches              a part of what GET shows, for instance {{"mood":"same_expiry"}}; moods: same_day,
                                         same_expiry, extends, same_string, no_expires_in, becomes_never, shortens.
                                         From users' reports: "owner_fields":"refused100" or "refused200", "most_rows":50,
                                         "code_2_for_bad_tokens", "dead_exchange_succeeds", "exchange_ends_input".
                                         Login for Business: "login_configs":[{{"id":"77","scopes":["ads_read"],"token":"user"}}],
                                         or the "token" is "system_user" or "system_user_60_days" (of ana-business, if ana agrees)

The dialog asks who you are, instead of a login, and then what you grant, for which ad accounts, or how it fails.
sandbox_person=ana in its URL answers the first question. A script adds sandbox_user=ana, and is redirected at once;
also sandbox_decision=deny (any of the words above), sandbox_decline=ads_read and sandbox_ad_accounts=1020304050
(or none). The page works without JavaScript; ids: person-1, person-name, person-go, scope-ads_read,
account-1020304050, continue, cancel, fail-ways (opens the list), fail-expired_code and so on.
"#
    )
}

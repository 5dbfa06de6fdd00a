"""Meta's official Python SDK as a client of the sandbox.

Whatever the SDK understands here, it understands of Meta. What Meta signs is verified by an older
SDK, since the official one knows nothing of it. The test beside this file starts the
sandbox and passes its URL; people and faults are made over /_sandbox.
"""

import hashlib
import hmac
import json
import sys
import time

import facebook
import requests
from facebook_business.adobjects.adaccount import AdAccount
from facebook_business.adobjects.business import Business
from facebook_business.adobjects.user import User
from facebook_business.api import FacebookAdsApi
from facebook_business.exceptions import FacebookRequestError
from facebook_business.session import FacebookSession

URL = sys.argv[1]
APP_ID = "123456789012345"
SECRET = "0123456789abcdef0123456789abcdef"

FacebookSession.GRAPH = URL


def control(path, body):
    reply = requests.post(f"{URL}/_sandbox{path}", json=body, timeout=10)
    assert reply.status_code == 200, reply.text
    return reply.json()


def api_of(token, secret=SECRET):
    return FacebookAdsApi.init(APP_ID, secret, token, crash_log=False, timeout=10)


def refusal(call):
    try:
        call()
    except FacebookRequestError as error:
        return error
    raise AssertionError("the call should have been refused")


def accounts_page_through_the_sdks_cursor():
    ana = control("/users", {"name": "ana", "grants": ["ads_read", "ads_management"], "ad_accounts": 7})
    token = ana["tokens"]["long_lived"]
    api_of(token)
    cursor = User("me").get_ad_accounts(
        fields=[AdAccount.Field.name, AdAccount.Field.account_status], params={"limit": 3}
    )
    found = list(cursor)
    assert [one["id"] for one in found] == [f"act_{id}" for id in ana["ad_accounts"]]
    assert all(isinstance(one, AdAccount) and one["account_status"] == 1 for one in found)
    assert cursor.total() == 7
    assert User("me").api_get(fields=["id", "name"])["name"] == "ana"
    return ana, token


def one_account_and_its_insights(ana):
    account = AdAccount(f"act_{ana['ad_accounts'][0]}")
    read = account.api_get(fields=["name", "currency", "timezone_name", "business"])
    assert read["currency"] == "EUR" and read["business"]["id"] == "777000111"
    rows = list(account.get_insights(fields=["spend", "impressions"], params={"date_preset": "last_7d"}))
    assert len(rows) == 1 and float(rows[0]["spend"]) > 0 and isinstance(rows[0]["impressions"], str)
    assert rows[0]["date_start"] < rows[0]["date_stop"]
    daily = list(account.get_insights(params={"date_preset": "last_7d", "time_increment": 1}))
    assert len(daily) == 7


def headers_of_limits_are_readable(ana, token):
    account = ana["ad_accounts"][0]
    scope = {"use_case": {"id": account, "kind": "ads_insights"}}
    control("/usage", {"scope": scope, "percent": 85})
    control("/usage", {"scope": {"ad_account": account}, "percent": 42.5})
    reply = api_of(token).call("GET", (f"act_{account}", "insights"))
    usage = json.loads(reply.headers()["X-Business-Use-Case-Usage"])
    assert usage[account][0]["type"] == "ads_insights" and usage[account][0]["call_count"] == 85
    assert 42 < json.loads(reply.headers()["X-Ad-Account-Usage"])["acc_id_util_pct"] < 43
    assert "acc_id_util_pct" in json.loads(reply.headers()["X-FB-Ads-Insights-Throttle"])
    assert reply.headers()["facebook-api-version"] == FacebookAdsApi.API_VERSION
    assert reply.etag()

    control("/usage", {"scope": {"ad_account": account}, "block_seconds": 60})
    error = refusal(lambda: AdAccount(f"act_{account}").get_insights())
    assert (error.api_error_code(), error.api_error_subcode()) == (17, 2446079)
    assert error.api_transient_error() is True and error.http_status() == 400
    assert requests.delete(f"{URL}/_sandbox/usage", timeout=10).status_code == 200


def errors_are_parsed(ana, token):
    api_of(token)
    foreign = refusal(lambda: AdAccount("act_1").api_get(fields=["name"]))
    assert (foreign.api_error_code(), foreign.api_error_subcode()) == (100, 33)
    assert foreign.api_error_type() == "GraphMethodException"

    eve = control("/users", {"name": "eve", "declines": ["ads_read"]})
    api_of(eve["tokens"]["short_lived"])
    denied = refusal(lambda: AdAccount(f"act_{eve['ad_accounts'][0]}").get_insights())
    assert denied.api_error_code() == 200 and "ads_read" in denied.api_error_message()
    statuses = {one["permission"]: one["status"] for one in User("me").get_permissions()}
    assert statuses["ads_read"] == "declined"

    short = ana["tokens"]["short_lived"]
    control("/tokens/expire", {"token": short})
    api_of(short)
    expired = refusal(lambda: User("me").api_get())
    assert (expired.api_error_code(), expired.api_error_subcode()) == (190, 463)
    assert expired.api_error_type() == "OAuthException" and expired.http_status() == 400
    assert "Session has expired on" in expired.api_error_message()
    assert expired.body()["error"]["fbtrace_id"] == expired.http_headers()["x-fb-request-id"]

    fault = {"http": 500, "code": 2, "transient": True}
    control("/faults", {"on": "any", "with": {"graph_error": fault}})
    api_of(token)
    transient = refusal(lambda: User("me").api_get())
    assert transient.api_error_code() == 2 and transient.api_transient_error() is True
    data = {"http": 400, "code": 100, "message": "bad", "data": {"blame_field_specs": [["name"]]}}
    control("/faults", {"on": "any", "with": {"error": data}})
    assert refusal(lambda: User("me").api_get()).api_blame_field_specs() == [["name"]]


def proofs_are_checked(token):
    control("/apps", {"id": APP_ID, "secrets": [SECRET], "name": "Ad Analytics", "require_proof": True})
    api_of(token)
    assert User("me").api_get()["name"] == "ana"
    api_of(token, secret="not the secret")
    wrong = refusal(lambda: User("me").api_get())
    assert wrong.api_error_code() == 100 and "Invalid appsecret_proof" in wrong.api_error_message()
    api_of(token, secret=None)
    missing = refusal(lambda: User("me").api_get())
    assert missing.api_error_code() == 100 and "require an appsecret_proof" in missing.api_error_message()
    control("/apps", {"id": APP_ID, "secrets": [SECRET], "name": "Ad Analytics"})


def a_short_token_is_exchanged():
    minted = control("/users/ana/tokens", {"kind": "short_lived"})["token"]
    reply = api_of(minted, secret=None).call(
        "GET",
        ("oauth", "access_token"),
        params={
            "grant_type": "fb_exchange_token",
            "client_id": APP_ID,
            "client_secret": SECRET,
            "fb_exchange_token": minted,
        },
    )
    lasting = reply.json()["access_token"]
    assert lasting != minted and reply.json()["expires_in"] == 5184000
    app_token = f"{APP_ID}|{SECRET}"
    proof = hmac.new(SECRET.encode(), app_token.encode(), hashlib.sha256).hexdigest()
    api = api_of(app_token)
    assert api._session.appsecret_proof == proof
    seen = api.call("GET", ("debug_token",), params={"input_token": lasting}).json()["data"]
    assert seen["is_valid"] is True and seen["type"] == "USER" and "ads_read" in seen["scopes"]


def what_users_reported_is_understood():
    dora = control(
        "/users",
        {
            "name": "dora",
            "grants": ["ads_read", "business_management"],
            "ad_accounts": 12,
            "businesses": [
                {"id": "888", "name": "Agency", "owned": [{"id": "21"}, {"id": "22"}], "clients": [{"id": "31"}]}
            ],
        },
    )
    token = dora["tokens"]["long_lived"]
    api_of(token)
    businesses = list(User("me").get_businesses(fields=[Business.Field.name]))
    assert {one["id"]: one["name"] for one in businesses} == {"777000111": "Shop", "888": "Agency"}
    agency = Business("888")
    owned = list(agency.get_owned_ad_accounts(fields=[AdAccount.Field.name], params={"limit": 1}))
    assert [one["id"] for one in owned] == ["act_21", "act_22"]
    assert all(isinstance(one, AdAccount) for one in owned)
    assert [one["id"] for one in agency.get_client_ad_accounts()] == ["act_31"]

    control("/switches", {"most_rows": 5, "owner_fields": "refused100"})
    too_much = refusal(lambda: User("me").get_ad_accounts(params={"limit": 10}))
    assert (too_much.http_status(), too_much.api_error_code()) == (500, 1)
    assert "reduce the amount of data" in too_much.api_error_message()
    assert len(list(User("me").get_ad_accounts(params={"limit": 5}))) == 12

    control("/users/dora/actions", {"action": "declines", "names": ["business_management"]})
    owner = [AdAccount.Field.name, AdAccount.Field.business, AdAccount.Field.funding_source_details]
    for switch, status, code in (("refused100", 400, 100), ("refused200", 403, 200)):
        control("/switches", {"owner_fields": switch})
        beyond = refusal(lambda: User("me").get_ad_accounts(fields=owner, params={"limit": 5}))
        assert (beyond.http_status(), beyond.api_error_code()) == (status, code)
        assert "Requires business_management" in beyond.api_error_message()
    assert refusal(lambda: agency.get_owned_ad_accounts()).api_error_code() == 200
    control("/switches", {"most_rows": None, "owner_fields": "shown"})

    control("/users/dora/actions", {"action": "ticks", "names": [dora["ad_accounts"][3]]})
    assert [one["account_id"] for one in User("me").get_ad_accounts()] == [dora["ad_accounts"][3]]

    control("/users/dora/actions", {"action": "falls_into", "subcode": 459})
    control("/users/dora/actions", {"action": "inspector_says_valid"})
    checkpoint = refusal(lambda: User("me").get_ad_accounts())
    assert (checkpoint.api_error_code(), checkpoint.api_error_subcode()) == (190, 459)
    seen = api_of(f"{APP_ID}|{SECRET}").call("GET", ("debug_token",), params={"input_token": token}).json()
    assert seen["data"]["is_valid"] is True
    control("/users/dora/actions", {"action": "heals"})

    control("/apps", {"id": APP_ID, "secrets": [SECRET], "name": "Ad Analytics", "blocked": "blocked"})
    api_of(token)
    blocked = refusal(lambda: User("me").api_get())
    assert (blocked.api_error_code(), blocked.api_error_message()) == (200, "API access blocked.")
    control("/apps", {"id": APP_ID, "secrets": [SECRET], "name": "Ad Analytics"})
    assert User("me").api_get()["name"] == "dora"


def signed_requests_are_verified_by_another_library():
    """With them the vault is tested, so somebody else than we has to say that Meta signs like this."""

    def signed(kind, sign):
        order = {"kind": kind, "user_id": "10158000000000001", "url": "http://127.0.0.1:1/", "sign": sign}
        sent = control("/callbacks", order)["deliveries"][0]["sent"]
        return sent.removeprefix("signed_request=")

    for kind in ("deauthorize", "data_deletion"):
        payload = facebook.parse_signed_request(signed(kind, "right"), SECRET)
        assert payload["user_id"] == "10158000000000001", payload
        assert abs(payload["issued_at"] - time.time()) < 300, payload
        assert facebook.parse_signed_request(signed(kind, "wrong"), SECRET) is False
        assert facebook.parse_signed_request(signed(kind, "right"), "another secret") is False


def main():
    ana, token = accounts_page_through_the_sdks_cursor()
    one_account_and_its_insights(ana)
    headers_of_limits_are_readable(ana, token)
    errors_are_parsed(ana, token)
    proofs_are_checked(token)
    a_short_token_is_exchanged()
    what_users_reported_is_understood()
    signed_requests_are_verified_by_another_library()
    print("the SDK is content")


main()

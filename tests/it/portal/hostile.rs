//! Names that want to be code.

use token_vault_sandbox::AdAccountSpec;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_name_is_text() {
    let (person, account) = ("<script>alert(1)</script>", "\"><img src=x onerror=alert(2)>");
    let world = world().await;
    let ana = world.sandbox.user("ana").with_ad_accounts(0).renamed(person);
    ana.ad_account(AdAccountSpec { name: account.into(), ..AdAccountSpec::default() });
    let browser = world.browser().await;
    browser.open(&world.connector().await.link(ACME).await.url).await;
    connect(&browser, "Connect Meta", "ana").await;
    let shown = browser.sees("Meta is connected").await;
    assert!(shown.contains(person) && shown.contains(account), "{shown}");
    assert_eq!(browser.count("main script, main img, [onerror]").await, 0);
    let card = browser.url().await.split('?').next().unwrap_or_default().to_owned();
    for path in [format!("{card}/embed"), format!("{card}.json"), card.clone()] {
        browser.open(&path).await;
        browser.sees("alert(1)").await;
        assert_eq!(browser.count("main script, img").await, 0, "{path}");
    }
    for result in
        ["%3Cscript%3Ealert(3)%3C/script%3E", "failed&reason=%22%3E%3Cimg%20src=x%20onerror=alert(4)%3E"]
    {
        browser.open(&format!("{card}?result={result}")).await;
        let shown = browser.sees("Active").await;
        assert!(!shown.contains("alert(3)") && !shown.contains("alert(4)"), "{shown}");
    }
    // The policy would have stopped it, and would have said so.
    assert_eq!(browser.alert().await, None);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    let breach = "let b = document.createElement('button'); b.setAttribute('onclick', 'alert(5)'); document.body.append(b); b.click(); return 1";
    browser.run(breach).await;
    let complaints = browser.complaints().await;
    assert!(complaints.iter().any(|text| text.contains("Content Security Policy")), "{complaints:?}");
    assert_eq!(browser.alert().await, None);
}

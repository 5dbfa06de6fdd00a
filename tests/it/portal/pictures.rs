//! Pictures of the card. `TOKEN_VAULT_PICTURES=1 cargo test --test it pictured` writes them into `docs/images`.

use std::fs;
use std::path::Path;

use token_vault_sandbox::AdAccountSpec;

use super::*;

/// The largest picture, so that the repository stays small.
const LARGEST: u64 = 60 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_card_is_pictured_in_each_state() {
    let world = moving().config("portal.name", "Acme Analytics").start().await;
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("docs").join("images");
    let folder = match std::env::var_os("TOKEN_VAULT_PICTURES") {
        Some(_) => docs,
        None => world.folder().join("images"),
    };
    fs::create_dir_all(&folder).expect("the folder is writable");
    let connector = world.connector().await;
    let ana = world.person("ana").renamed("Ana Kovač").with_ad_accounts(0);
    for (id, name) in [("1020304050", "Shop Europe"), ("1020304051", "Shop Americas")] {
        ana.ad_account(AdAccountSpec { id: Some(id.into()), name: name.into(), ..AdAccountSpec::default() });
    }
    let browser = world.browser().await;
    let picture = async |name: &str, width| {
        browser.width(width).await;
        let file = folder.join(format!("portal-{name}.png"));
        browser.screenshot(&file).await;
        let size = fs::metadata(&file).expect("it was written").len();
        assert!((2_000..LARGEST).contains(&size), "{name}: {size} bytes");
    };
    browser.dark(false).await;
    browser.open(&connector.link(ACME).await.url).await;
    browser.sees("Nothing is connected yet").await;
    picture("empty", 900).await;
    let id = connector.connect(ACME, &ana.long_lived_token()).await;
    browser.open(&link_for(&world, &id).await.url).await;
    browser.wait_for(".badge.green").await;
    picture("green", 900).await;
    world.advance(Duration::from_secs(56 * 86_400)).await;
    connector.validate(&id).await.expect("it is looked at");
    let made = link_for(&world, &id).await;
    browser.open(&made.url).await;
    browser.wait_for(".badge.amber").await;
    picture("expiring", 900).await;
    ana.changes_password();
    connector.validate(&id).await.expect("it is looked at");
    browser.open(&made.url).await;
    browser.wait_for(".badge.red").await;
    picture("dead", 900).await;
    picture("phone", 360).await;
}

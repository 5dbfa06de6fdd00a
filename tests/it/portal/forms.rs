//! Forms that another site, or nobody's page, sends.

use super::*;

/// What is wrong with a form: its token, and the headers beside it.
type Case<'a> = (&'a str, &'a str, Vec<(&'a str, &'a str)>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_of_another_page_changes_nothing() {
    let world = world().await;
    let (ana, connector) = (world.person("ana"), world.connector().await);
    let id = connector.connect(ACME, &ana.long_lived_token()).await;
    // A link for each case, because each has a bound on what is sent for it.
    let mut cards = Vec::new();
    for _ in 0..10 {
        let (made, mut visitor) = (connector.link(ACME).await, Visitor::default());
        let csrf = card(&mut visitor, &world, &made.url).await.field("csrf").expect("a form").to_owned();
        cards.push((made, visitor, csrf));
    }
    let (made, mut visitor, own) = cards.pop().expect("there are ten");
    let (_, _, others) = cards.pop().expect("there are nine");
    assert_ne!(own, others, "one browser's forms are not another's");
    let elsewhere = connector.link("globex").await;
    let of_another_link = card(&mut visitor, &world, &elsewhere.url).await.field("csrf").unwrap().to_owned();
    let token = ana.long_lived_token();
    world.know("pasted token", &token);
    world.nothing_is_due().await;
    let before = (world.database.contents().await, world.sandbox.requests().len());
    let same = ("sec-fetch-site", "same-origin");
    let portal = world.portal_url();
    let good = "its own";
    let cases: [Case<'_>; 8] = [
        ("none", "", vec![same]),
        ("a guess", "0123456789abcdef", vec![same]),
        ("another browser's", &others, vec![same]),
        ("another link's", &of_another_link, vec![same]),
        ("a foreign origin", good, vec![("origin", "https://evil.example")]),
        ("cross-site", good, vec![("sec-fetch-site", "cross-site")]),
        ("same-site", good, vec![("origin", &portal), ("sec-fetch-site", "same-site")]),
        ("a sandboxed frame", good, vec![("origin", "null"), ("sec-fetch-site", "cross-site")]),
    ];
    for ((what, csrf, headers), (made, visitor, own)) in cases.iter().zip(&mut cards) {
        let csrf = if *csrf == good { own.as_str() } else { csrf };
        for name in ["connect", "paste", "validate"] {
            let form = [("csrf", csrf), ("connection_id", &id), ("access_token", &token)];
            let form: Vec<_> = form.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            let answer = visitor.post(&step(&world, made, name), &form, headers).await;
            assert_eq!(answer.status.as_u16(), 403, "{what}, {name}");
            assert!(answer.body.contains("nothing was done"), "{}", answer.body);
        }
    }
    // Nor without the cookie of the link.
    let session: Vec<_> = visitor.cookies().filter(|(name, _)| *name == "session").collect();
    let session = session.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let answer = Visitor::with(session).post(&step(&world, &made, "connect"), &[("csrf", &own)], &[]).await;
    assert_eq!(answer.status.as_u16(), 403);
    assert_eq!((world.database.contents().await, world.sandbox.requests().len()), before);
    let answer = visitor.post(&step(&world, &made, "connect"), &[("csrf", &own)], &[same]).await;
    assert_eq!(answer.status.as_u16(), 200, "the right form does it: {}", answer.body);
}

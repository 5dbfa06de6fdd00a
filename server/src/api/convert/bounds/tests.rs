//! Pages and elements of every size, made by a generator that gives the same numbers in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};
use token_vault_proto::v1 as pb;
use token_vault_proto::v1::expiry_event::{Changed, Detail};

use super::{Element, PAGE, Page, WHOLE, beside, fit, texts, whole};

const MIB: usize = 1024 * 1024;

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    /// A number up to a bound of any magnitude, so that small and large ones are as likely.
    fn any_size(&mut self, bits: usize) -> usize {
        let bits = self.below(bits + 1);
        self.below(1 << bits)
    }

    fn texts(&mut self, bits: usize, longest: usize) -> Vec<String> {
        let (count, longest) = (self.any_size(bits), 1 + self.below(longest));
        (0..count).map(|at| format!("{at:0>width$}", width = 1 + self.below(longest))).collect()
    }

    fn token(&mut self, number: usize) -> pb::Token {
        let scopes = self.below(40);
        let granular = (0..scopes).map(|at| pb::GranularScope {
            scope: format!("scope_{at}"),
            target_ids: if self.below(4) == 0 { Vec::new() } else { self.texts(14, 20) },
            left_out_target_ids: 0,
        });
        let granular_scopes = granular.collect();
        pb::Token {
            connection_id: number.to_string(),
            scopes: self.texts(if number.is_multiple_of(7) { 17 } else { 6 }, 30),
            granular_scopes,
            ..Default::default()
        }
    }

    fn event(&mut self, number: usize) -> pb::ExpiryEvent {
        let many = if number.is_multiple_of(10) { 100_000 + self.below(100_000) } else { self.below(1_000) };
        let (added, removed) = ((0..many).map(|at| format!("{at:0>16}")).collect(), self.texts(15, 24));
        pb::ExpiryEvent {
            cursor: number.to_string(),
            detail: Some(Detail::Changed(Changed { added, removed, ..Changed::default() })),
            ..Default::default()
        }
    }
}

/// Asserts that a list is the beginning of what it was, and that what it lost is counted.
fn begins(shown: &[String], left_out: i32, all: &[String]) {
    assert!(all.starts_with(shown), "{} of {}", shown.len(), all.len());
    assert_eq!(shown.len() + usize::try_from(left_out).unwrap(), all.len());
}

fn is_beginning(shown: &pb::Token, all: &pb::Token) {
    begins(&shown.scopes, shown.left_out_scopes, &all.scopes);
    let left_out = usize::try_from(shown.left_out_granular_scopes).unwrap();
    assert_eq!(shown.granular_scopes.len() + left_out, all.granular_scopes.len());
    for (shown, all) in shown.granular_scopes.iter().zip(&all.granular_scopes) {
        assert_eq!(shown.scope, all.scope);
        begins(&shown.target_ids, shown.left_out_target_ids, &all.target_ids);
        assert_eq!(shown.target_ids.is_empty(), all.target_ids.is_empty(), "no targets would mean all");
    }
}

#[test]
fn a_token_of_any_shape_fits_and_counts_what_it_lost() {
    let mut dice = Dice(1);
    let (mut whole_ones, mut cut) = (0, 0);
    for number in 0..60 {
        let all = dice.token(number);
        for most in [4_000, 100_000, PAGE, WHOLE] {
            let mut shown = all.clone();
            let length = fit(&mut shown, most);
            assert_eq!(length, shown.encoded_len());
            assert!(length <= most, "{length} bytes of {most}");
            is_beginning(&shown, &all);
            if all.encoded_len() <= most {
                assert_eq!(shown, all);
                whole_ones += 1;
            } else {
                assert!(length * 10 > most * 4, "it could have shown more: {length} of {most}");
                cut += 1;
            }
        }
    }
    assert!(whole_ones > 40 && cut > 40, "{whole_ones} whole, {cut} cut");
}

#[test]
fn short_lists_stay_whole_and_long_ones_share_the_room() {
    let ids = |count: usize| (0..count).map(|at| format!("1020304050{at:06}")).collect::<Vec<_>>();
    let scope = |name: &str, count: usize| pb::GranularScope {
        scope: name.into(),
        target_ids: ids(count),
        left_out_target_ids: 0,
    };
    let all = pb::Token {
        scopes: vec!["ads_read".into(), "ads_management".into()],
        granular_scopes: vec![
            scope("ads_read", 60_000),
            scope("pages_show_list", 3),
            scope("business_management", 0),
            scope("ads_management", 60_000),
        ],
        ..Default::default()
    };
    let shown = beside(all.clone()).unwrap();
    is_beginning(&shown, &all);
    assert_eq!((&shown.scopes, shown.left_out_scopes, shown.left_out_granular_scopes), (&all.scopes, 0, 0));
    let left: Vec<_> = shown.granular_scopes.iter().map(|scope| scope.left_out_target_ids).collect();
    assert!(left[0] > 20_000 && left[0] == left[3] && left[1] == 0 && left[2] == 0, "{left:?}");
    assert!(shown.encoded_len() > PAGE - 1_000, "the room is used");
    // Alone, it is whole.
    assert_eq!(whole(all.clone()), Some(all));
    // A single scope that is longer than a whole page can't be shown.
    let absurd =
        pb::Token { scopes: vec!["a".into(), "x".repeat(2 * MIB), "b".into()], ..Default::default() };
    let shown = beside(absurd).unwrap();
    assert_eq!((shown.scopes, shown.left_out_scopes), (vec!["a".to_owned()], 2));
    // Nor can more scopes with targets than fit with one target each.
    let many = pb::Token {
        granular_scopes: (0..100_000).map(|at| scope(&format!("scope_{at}"), 2)).collect(),
        ..Default::default()
    };
    let shown = beside(many.clone()).unwrap();
    is_beginning(&shown, &many);
    assert!(shown.left_out_granular_scopes > 80_000 && shown.encoded_len() <= PAGE);
}

#[test]
fn an_event_that_lists_too_much_is_cut_on_both_sides() {
    let mut dice = Dice(2);
    let mut cut = 0;
    for number in 0..30 {
        let all = dice.event(number);
        let mut shown = all.clone();
        let length = fit(&mut shown, PAGE);
        assert!(length == shown.encoded_len() && length <= PAGE);
        let (Some(Detail::Changed(shown)), Some(Detail::Changed(all))) = (shown.detail, all.detail) else {
            panic!("a detail")
        };
        begins(&shown.added, shown.left_out_added, &all.added);
        begins(&shown.removed, shown.left_out_removed, &all.removed);
        cut += i32::from(shown.left_out_added + shown.left_out_removed > 0);
    }
    assert_eq!(cut, 3);
}

#[test]
fn pages_hold_every_element_once_and_never_more_than_a_mebibyte() {
    let mut dice = Dice(3);
    for (count, page_size) in [(20, 1), (20, 7), (40, 50), (40, 1_000)] {
        let all: Vec<_> = (0..count).map(|number| dice.token(number)).collect();
        let mut left = all.as_slice();
        while !left.is_empty() {
            let mut page = Page::<pb::Token>::default();
            let taken = left.iter().take(page_size).take_while(|token| page.take((*token).clone())).count();
            let tokens = page.with(()).elements;
            assert!(taken > 0 && tokens.len() == taken, "a page makes progress");
            tokens.iter().zip(left).for_each(|(shown, all)| is_beginning(shown, all));
            let page_token = "x".repeat(4 * 1024);
            let response =
                pb::ListTokensResponse { tokens, next_page_token: page_token, ..Default::default() };
            assert!(response.encoded_len() <= MIB, "{}", response.encoded_len());
            left = &left[taken..];
        }
        // A stream sends the same elements, on as few pages as they need.
        let pages = Page::<pb::Token>::split(all.clone());
        assert!(
            pages.iter().all(|page| page.iter().map(|token| token.encoded_len() + 4).sum::<usize>() <= PAGE)
        );
        let sent: Vec<_> = pages.into_iter().flatten().map(|token| token.connection_id).collect();
        assert_eq!(sent, all.into_iter().map(|token| token.connection_id).collect::<Vec<_>>());
    }
    assert!(Page::<pb::Token>::split(Vec::<pb::Token>::new()).is_empty());
}

/// An element that counts how often it is measured and cut.
#[derive(Debug, Clone, Default)]
struct Counted {
    bytes: usize,
    measured: Arc<AtomicUsize>,
    cut: Arc<AtomicUsize>,
}

impl Message for Counted {
    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        _: u32,
        _: WireType,
        _: &mut impl Buf,
        _: DecodeContext,
    ) -> Result<(), DecodeError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.measured.fetch_add(1, Ordering::Relaxed);
        self.bytes
    }

    fn clear(&mut self) {}
}

impl Element for Counted {
    fn cut(&mut self, most: usize) {
        self.cut.fetch_add(1, Ordering::Relaxed);
        self.bytes = most;
    }
}

#[test]
fn each_element_is_measured_once_and_only_a_large_one_is_cut() {
    let cost = |bytes: usize, count: usize| {
        let counted = Counted { bytes, ..Counted::default() };
        let mut page = Page::<Counted>::default();
        let taken = (0..count).take_while(|_| page.take(counted.clone())).count();
        (taken, counted.measured.load(Ordering::Relaxed), counted.cut.load(Ordering::Relaxed))
    };
    // Taken, measured, cut. The element that begins the next page is measured on this one too.
    assert_eq!(cost(600, 1_000), (1_000, 1_000, 0));
    assert_eq!(cost(120_000, 50), (8, 9, 0));
    assert_eq!(cost(5 * MIB, 50), (1, 4, 2));
}

#[test]
fn texts_of_others_are_cut_between_characters_and_between_entries() {
    assert_eq!(texts::shortened("Müller".into(), 100), "Müller");
    assert_eq!(texts::shortened("Müller".into(), 5), "M…", "no half character");
    assert!(texts::name("ü".repeat(2_000)).len() <= 1_024);
    let of = |value: &str, most: usize| {
        let facts = texts::bounded([("missing".to_owned(), value.to_owned())], most);
        (facts["missing"].clone(), facts.get("left_out").cloned())
    };
    assert_eq!(of("ads_read, ads_management", 24), ("ads_read, ads_management".into(), None));
    assert_eq!(of("ads_read, ads_management", 23), ("ads_read".into(), Some("1".into())));
    assert_eq!(of("ads_read, a, b, c", 8), ("ads_read".into(), Some("3".into())));
    assert_eq!(of("ads_read, a, b, c", 12), ("ads_read, a".into(), Some("2".into())));
    assert_eq!(of(&"x".repeat(20), 10), ("xxxxxxx…".into(), None));
}

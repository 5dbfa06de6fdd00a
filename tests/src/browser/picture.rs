//! Makes pictures small. Chromium writes three bytes for each point, and a picture of a page has few colours.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};

use flate2::Compression;
use flate2::Crc;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The bytes of a point: red, green, blue.
const POINT: usize = 3;

/// The same PNG with a palette. Colours that nobody can tell apart become the commonest one of them.
pub(super) fn small(png: &[u8]) -> Vec<u8> {
    let (mut head, mut packed) = (Vec::new(), Vec::new());
    let mut rest = png.strip_prefix(SIGNATURE).expect("a PNG");
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).expect("it fits");
        match &after[..4] {
            b"IHDR" => head = after[4..4 + length].to_vec(),
            b"IDAT" => packed.extend_from_slice(&after[4..4 + length]),
            _ => {}
        }
        rest = &after[length + 8..];
    }
    assert_eq!(head[8..], [8, 2, 0, 0, 0], "eight bits of red, green and blue");
    let width = usize::try_from(u32::from_be_bytes([head[0], head[1], head[2], head[3]])).expect("it fits");
    let mut lines = Vec::new();
    ZlibDecoder::new(packed.as_slice()).read_to_end(&mut lines).expect("its lines");
    let lines = plain(&lines, width * POINT);

    // As fine as a palette of 256 colours allows.
    let mut masks = [0xff, 0xfe, 0xfc, 0xf8, 0xf0].into_iter().map(|mask| (mask, palette(&lines, mask)));
    let (mask, palette) = masks.find(|(_, palette)| palette.len() <= 256).expect("a page has few colours");
    let places: HashMap<_, _> =
        (0..=u8::MAX).zip(&palette).map(|(place, (_, rough))| (*rough, place)).collect();
    let mut packer = ZlibEncoder::new(Vec::new(), Compression::best());
    for line in &lines {
        let points = line.chunks_exact(POINT).map(|color| places[&rough(color, mask)]);
        let line: Vec<u8> = std::iter::once(0).chain(points).collect();
        packer.write_all(&line).expect("memory can be written");
    }
    head[9] = 3;
    let mut small = SIGNATURE.to_vec();
    chunk(&mut small, b"IHDR", &head);
    chunk(
        &mut small,
        b"PLTE",
        &palette.iter().flat_map(|(color, _)| color.iter().copied()).collect::<Vec<_>>(),
    );
    chunk(&mut small, b"IDAT", &packer.finish().expect("memory can be written"));
    chunk(&mut small, b"IEND", &[]);
    small
}

/// The commonest colour of those that are one under the mask, for each of them.
fn palette(lines: &[Vec<u8>], mask: u8) -> Vec<(&[u8], [u8; POINT])> {
    let mut alike: HashMap<[u8; POINT], BTreeMap<&[u8], usize>> = HashMap::new();
    for color in lines.iter().flat_map(|line| line.chunks_exact(POINT)) {
        *alike.entry(rough(color, mask)).or_default().entry(color).or_default() += 1;
    }
    let mut palette: Vec<_> = alike
        .into_iter()
        .filter_map(|(rough, all)| Some((all.into_iter().max_by_key(|(_, count)| *count)?.0, rough)))
        .collect();
    palette.sort_unstable();
    palette
}

fn rough(color: &[u8], mask: u8) -> [u8; POINT] {
    [color[0] & mask, color[1] & mask, color[2] & mask]
}

fn chunk(png: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    png.extend(u32::try_from(data.len()).expect("it fits").to_be_bytes());
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(data);
    png.extend(kind);
    png.extend(data);
    png.extend(sum.sum().to_be_bytes());
}

/// Undoes the filters of PNG: each byte was written as its difference from a guess.
fn plain(filtered: &[u8], length: usize) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in filtered.chunks_exact(length + 1) {
        let above = lines.last().cloned().unwrap_or_else(|| vec![0; length]);
        let mut now = line[1..].to_vec();
        for at in 0..length {
            let before = |line: &[u8]| at.checked_sub(POINT).map_or(0, |at| line[at]);
            let (left, up, corner) = (before(&now), above[at], before(&above));
            let guess = match line[0] {
                0 => 0,
                1 => left,
                2 => up,
                3 => left.midpoint(up),
                _ => nearest(left, up, corner),
            };
            now[at] = now[at].wrapping_add(guess);
        }
        lines.push(now);
    }
    lines
}

/// Paeth's guess.
fn nearest(left: u8, up: u8, corner: u8) -> u8 {
    let guess = i16::from(left) + i16::from(up) - i16::from(corner);
    let far = |from: u8| (guess - i16::from(from)).abs();
    if far(left) <= far(up) && far(left) <= far(corner) {
        left
    } else if far(up) <= far(corner) {
        up
    } else {
        corner
    }
}

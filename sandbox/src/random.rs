//! Random texts: letters and digits, or decimal digits only.

pub(crate) fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length)
        .map(|_| {
            let index = rand::random_range(0..ALPHABET.len());
            ALPHABET.get(index).map_or('A', |&letter| char::from(letter))
        })
        .collect()
}

pub(crate) fn random_digits(length: usize) -> String {
    (0..length).map(|_| char::from(b'0' + rand::random_range(0..10_u8))).collect()
}

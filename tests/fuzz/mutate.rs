//! Mutations of a corpus, the same in every run: bits and bytes changed, pieces cut, doubled, moved and joined.

/// Longest input made.
const LENGTH_MAX: usize = 64 * 1024;
/// Bytes and pieces that parsers care about.
const TELLING: [&[u8]; 24] = [
    b"\x00",
    b"\xff",
    b"\x80",
    b"\x30",
    b"\x30\x80",
    b"\x30\x84\xff\xff\xff\xff",
    b"\x7f",
    b"\xef\xbb\xbf",
    b".",
    b"..",
    b"/",
    b"//",
    b":",
    b"%2e",
    b"\"",
    b"\\",
    b"${",
    b"}",
    b"{",
    b"[",
    b"-1",
    b"18446744073709551616",
    b"null",
    b"\n",
];

pub struct Mutator {
    state: u64,
    corpus: Vec<Vec<u8>>,
}

impl Mutator {
    /// The seed is the name: each target has its own sequence.
    pub fn new(name: &str, corpus: Vec<Vec<u8>>) -> Self {
        let state = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        Self { state, corpus }
    }

    /// SplitMix64.
    fn dice(&mut self, below: usize) -> usize {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((z ^ (z >> 31)) % below.max(1) as u64).unwrap_or(0)
    }

    fn any(&mut self) -> Vec<u8> {
        let at = self.dice(self.corpus.len());
        self.corpus[at].clone()
    }

    /// The next input: some file with one to four changes.
    pub fn next(&mut self) -> Vec<u8> {
        let mut input = self.any();
        for _ in 0..=self.dice(4) {
            self.change(&mut input);
        }
        input.truncate(LENGTH_MAX);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        let (a, b) = (self.dice(input.len() + 1), self.dice(input.len() + 1));
        let (from, to) = (a.min(b), a.max(b));
        match self.dice(8) {
            0 if from < input.len() => input[from] ^= 1 << self.dice(8),
            1 if from < input.len() => input[from] = u8::try_from(self.dice(256)).unwrap_or(0),
            2 => drop(input.drain(from..to.min(from + 16))),
            3 => input.truncate(to),
            4 => {
                let piece = input[from..to].to_vec();
                input.splice(to..to, piece);
            }
            5 => {
                let other = self.any();
                let (at, end) = (self.dice(other.len()), other.len());
                input.splice(from..to, other[at..end].iter().copied());
            }
            _ => {
                let piece = TELLING[self.dice(TELLING.len())];
                let end = if self.dice(2) == 0 { from } else { (from + piece.len()).min(input.len()) };
                input.splice(from..end, piece.iter().copied());
            }
        }
    }
}

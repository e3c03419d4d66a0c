//! Redis patterns: `*`, `?`, `[a-z]`, `[^x]`, and `\` before any of them, as in Redis'
//! `stringmatchlen`.
//!
//! A pattern is compiled once for all keys of a request. The comparison of a key with a pattern
//! that has many stars can take steps in proportion to the product of both lengths, so the caller
//! gives a budget of steps.

/// Longest pattern, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// The bytes that one place of a text may have: bit b stands for byte b.
type Set = [u64; 4];

#[derive(Debug)]
enum Token {
    /// Any number of bytes.
    Star,
    /// One byte of a set.
    One(Box<Set>),
    /// This byte.
    Byte(u8),
}

/// A compiled pattern.
#[derive(Debug)]
pub struct Glob {
    tokens: Vec<Token>,
}

fn insert(set: &mut Set, byte: u8) {
    set[usize::from(byte >> 6)] |= 1 << (byte & 63);
}

fn contains(set: &Set, byte: u8) -> bool {
    set[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
}

impl Glob {
    /// Compiles a pattern. Every byte string is a pattern.
    pub fn new(pattern: &[u8]) -> Glob {
        let (mut tokens, mut rest) = (Vec::new(), pattern);
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            tokens.push(match (first, after) {
                (b'*', _) if matches!(tokens.last(), Some(Token::Star)) => continue,
                (b'*', _) => Token::Star,
                (b'?', _) => Token::One([u64::MAX; 4].into()),
                (b'[', _) => {
                    let (set, after) = class(after);
                    rest = after;
                    Token::One(set.into())
                }
                (b'\\', [escaped, after @ ..]) => {
                    rest = after;
                    Token::Byte(*escaped)
                }
                (literal, _) => Token::Byte(literal),
            });
        }
        Glob { tokens }
    }

    /// Whether a text matches. Each comparison of a place takes one of `steps`; `None` when they do
    /// not suffice.
    pub fn matches(&self, text: &[u8], steps: &mut u64) -> Option<bool> {
        let (mut token, mut place) = (0, 0);
        // The last star, and the place where the text that it matches ends.
        let mut star: Option<(usize, usize)> = None;
        while place < text.len() {
            *steps = steps.checked_sub(1)?;
            let matched = match self.tokens.get(token) {
                Some(Token::Star) => {
                    star = Some((token, place));
                    token += 1;
                    continue;
                }
                Some(Token::One(set)) => contains(set, text[place]),
                Some(Token::Byte(byte)) => *byte == text[place],
                None => false,
            };
            match (matched, &mut star) {
                (true, _) => {
                    token += 1;
                    place += 1;
                }
                // The star matches one more byte.
                (false, Some((at, end))) => {
                    *end += 1;
                    token = *at + 1;
                    place = *end;
                }
                (false, None) => return Some(false),
            }
        }
        Some(self.tokens[token..].iter().all(|token| matches!(token, Token::Star)))
    }
}

/// The set of a class after its `[`, and the pattern after its `]`. A class without `]` extends to
/// the end of the pattern.
fn class(pattern: &[u8]) -> (Set, &[u8]) {
    let (negated, mut rest) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut set = [0; 4];
    loop {
        rest = match rest {
            [] => break,
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [b'\\', escaped, after @ ..] => {
                insert(&mut set, *escaped);
                after
            }
            [low, b'-', high, after @ ..] => {
                (*low.min(high)..=*low.max(high)).for_each(|byte| insert(&mut set, byte));
                after
            }
            [byte, after @ ..] => {
                insert(&mut set, *byte);
                after
            }
        };
    }
    (if negated { set.map(|bits| !bits) } else { set }, rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "x", false),
            ("h?llo", "hello", true),
            ("h*o", "ho", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "ab c", false),
            ("a***b", "axxb", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("\\", "\\", true),
            ("[", "x", false),
            ("[x", "x", true),
            ("[\\]]", "]", true),
            ("[a\\-c]", "-", true),
            ("[a\\-c]", "b", false),
            ("[]x]", "x", false),
            ("[^]x", "yx", true),
        ] {
            let mut steps = 1000;
            let found = Glob::new(pattern.as_bytes()).matches(text.as_bytes(), &mut steps);
            assert_eq!(found, Some(expected), "{pattern} {text}");
        }
    }

    #[test]
    fn a_costly_pattern_ends_with_its_budget() {
        let pattern = [&b"*["[..], &[b'x'; 1000], b"]z"].concat();
        let (text, mut steps) = (vec![b'x'; 16 << 10], 100_000);
        assert_eq!(Glob::new(&pattern).matches(&text, &mut steps), Some(false));
        assert!(steps > 50_000, "a class costs one step, however long it is");
        let pattern = [&b"*"[..], &[b'x'; 500], b"z"].concat();
        assert_eq!(Glob::new(&pattern).matches(&text, &mut steps), None);
        assert_eq!(steps, 0);
    }
}

//! Reads one line of JSON so that nobody behind the gate can read it otherwise, and writes JSON in one form only.
//!
//! Never guesses: a name that stands twice, nesting without end, a carriage return between two values are refused.

use avouch_credential::json::{Names, bounded};
use serde_json::error::Category;
use serde_json::{Number, Value};

use crate::gate::limits::QUOTE_MAX;
use crate::gate::quote;

/// Why a line was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// It is no JSON at all; else it is JSON that can be read in two ways.
    pub syntax: bool,
    pub text: String,
}

/// Reads one line.
///
/// A carriage return in it is refused: JSON takes it for space, and readers of lines in Python for the end of one, so
/// that one message here would be three there.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse(line: &[u8], depth: usize, names: Names) -> Result<Value, Fault> {
    let syntax = |text: &str| Fault { syntax: true, text: text.to_owned() };
    let text = std::str::from_utf8(line).map_err(|_| syntax("the line is not UTF-8"))?;
    if text.contains('\r') {
        return Err(Fault { syntax: false, text: "there is a carriage return inside the line".to_owned() });
    }
    bounded(line, depth, names).map_err(|e| Fault {
        syntax: e.classify() != Category::Data,
        text: quote(&e.to_string(), 2 * QUOTE_MAX),
    })
}

/// The canonical form of RFC 8785: no spaces, names in the order of their UTF-16 units, numbers as JavaScript writes
/// them. Other than there, a whole number beyond 2^53 keeps all its digits, so that no two of them look alike.
#[must_use]
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Number(number) => out.push_str(&digits(number)),
        Value::Array(values) => {
            out.push('[');
            for (n, value) in values.iter().enumerate() {
                out.push_str(if n == 0 { "" } else { "," });
                write(value, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
            out.push('{');
            for (n, (name, value)) in pairs.into_iter().enumerate() {
                out.push_str(if n == 0 { "" } else { "," });
                out.push_str(&Value::String(name.clone()).to_string());
                out.push(':');
                write(value, out);
            }
            out.push('}');
        }
        // serde_json escapes what RFC 8785 escapes, and in the same way.
        plain => out.push_str(&plain.to_string()),
    }
}

fn digits(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => float(value),
        _ => number.to_string(),
    }
}

/// ECMAScript's Number::toString (ECMA-262, section 6.1.6.1.20) for a finite number.
fn float(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    let shortest = format!("{:e}", value.abs());
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let digits = mantissa.replace('.', "");
    let point = exponent.parse::<i32>().unwrap_or_default() + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or_default());
    let text = if (count..=21).contains(&point) {
        format!("{digits}{}", zeros(point - count))
    } else if (1..=21).contains(&point) {
        let (whole, rest) = digits.split_at(usize::try_from(point).unwrap_or_default());
        format!("{whole}.{rest}")
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let sign = if point > 0 { "+" } else { "-" };
        format!("{first}{dot}{rest}e{sign}{}", (point - 1).abs())
    };
    if value < 0.0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Value, Fault> {
        parse(text.as_bytes(), 4, Names::Folded)
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        for (text, told) in [
            (r#"{"a":1,"a":2}"#, "the name \"a\" stands twice"),
            (r#"{"x":{"name":1,"Name":2}}"#, "the name \"Name\" stands twice"),
            // The long s and the Kelvin sign are an s and a k to readers that fold names.
            ("{\"param\u{17f}\":1,\"params\":2}", "stands twice"),
            ("{\"\u{212a}\":1,\"k\":2}", "stands twice"),
            ("{\"a\":1,\r\"b\":2}", "carriage return"),
            ("[[[[[1]]]]]", "nested too deep"),
            (r#"{"a":{"b":{"c":{"d":{}}}}}"#, "nested too deep"),
        ] {
            let fault = read(text).unwrap_err();
            assert!(!fault.syntax && fault.text.contains(told), "{text}: {fault:?}");
        }
        assert!(parse(br#"{"name":1,"Name":2}"#, 4, Names::Exact).is_ok());
        assert!(read("[[[[1]]]]").is_ok());
    }

    #[test]
    fn what_is_no_json_is_not_read() {
        for text in ["", "{", "{}{}", "nul", "{'a':1}", "[1,]", "NaN", "\u{feff}{}", "1e999", "\"\\ud800\""] {
            assert!(read(text).unwrap_err().syntax, "{text}");
        }
        assert!(parse(b"\"\xff\"", 4, Names::Exact).unwrap_err().syntax);
    }

    #[test]
    fn nesting_without_end_does_not_end_the_reader() {
        assert!(read(&"[".repeat(1_000_000)).is_err());
        assert!(read(&"{\"a\":".repeat(1_000_000)).is_err());
    }

    #[test]
    fn the_canonical_form_is_that_of_rfc_8785() {
        // The example of its section 3.2.4, without what no double holds.
        let text = r#"{ "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
          "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false] }"#;
        let told = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
            \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(canonical(&read(text).unwrap()), told);
        // Its section 3.2.3: by UTF-16 units, not by code points.
        let text =
            "{\"\u{20ac}\":1,\"\\r\":2,\"\u{fb33}\":3,\"1\":4,\"\u{1f600}\":5,\"\u{80}\":6,\"\u{f6}\":7}";
        let order: Vec<_> = canonical(&read(text).unwrap()).chars().filter(char::is_ascii_digit).collect();
        assert_eq!(order, ['2', '1', '4', '6', '7', '1', '5', '3']);
    }

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (text, told) in [
            ("1.0", "1"),
            ("-0.0", "0"),
            ("1e21", "1e+21"),
            ("1e20", "100000000000000000000"),
            ("123456.789", "123456.789"),
            ("1e-6", "0.000001"),
            ("1e-7", "1e-7"),
            ("-1.5e300", "-1.5e+300"),
            ("5e-324", "5e-324"),
            ("9007199254740993", "9007199254740993"),
            ("-7", "-7"),
        ] {
            assert_eq!(canonical(&read(text).unwrap()), told, "{text}");
        }
    }
}

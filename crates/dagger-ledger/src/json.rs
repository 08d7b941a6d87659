//! Strict JSON: what a transaction may look like as bytes is fixed here and nowhere else.
//!
//! A parser library's leniency or its error texts must never decide an outcome, or an upgrade of it would fork the
//! ledger. So the parser is ours, small and complete: UTF-8, no duplicate fields, no fractions or exponents, no negative
//! numbers, none above 2^53 (larger ones as strings of digits), bounded depth, nothing after the document. Errors carry
//! a [`Code`].

use std::borrow::Cow;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use crate::code::Code;

/// The largest number that every JSON implementation keeps exactly.
pub const INTEGER_MAX: u64 = 1 << 53;

/// Deepest nesting of objects and arrays.
pub const DEPTH_MAX: usize = 16;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    /// The outcome code.
    pub code: Code,
    /// A field name or a byte offset. For people; outcomes do not depend on it.
    pub at: String,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.code, self.at)
    }
}

impl std::error::Error for JsonError {}

/// Reads one strict document.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|e| JsonError {
        code: Code::Malformed,
        at: format!("byte {}", e.valid_up_to()),
    })?;
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        depth: 0,
    };
    let value = parser.value()?;
    parser.blank();
    if parser.at != parser.bytes.len() {
        return Err(parser.error(Code::Malformed));
    }
    T::deserialize(value)
}

/// A parsed document that borrows its strings from the bytes where it can.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool(bool),
    Number(u64),
    Text(Cow<'a, str>),
    List(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

struct Parser<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn error(&self, code: Code) -> JsonError {
        JsonError {
            code,
            at: format!("byte {}", self.at),
        }
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        self.blank();
        match self.bytes.get(self.at) {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::list),
            Some(b'"') => self.string().map(Value::Text),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.') => self.number(),
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(self.error(Code::Malformed)),
        }
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Value<'a>, JsonError>,
    ) -> Result<Value<'a>, JsonError> {
        if self.depth == DEPTH_MAX {
            return Err(self.error(Code::TooDeep));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        if self.bytes[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            Ok(value)
        } else {
            Err(self.error(Code::Malformed))
        }
    }

    fn number(&mut self) -> Result<Value<'a>, JsonError> {
        let start = self.at;
        let mut number: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.bytes.get(self.at) {
            number = number
                .checked_mul(10)
                .and_then(|n| n.checked_add(u64::from(digit - b'0')))
                .ok_or_else(|| self.error(Code::BadNumber))?;
            self.at += 1;
        }
        let leading_zero = self.bytes[start] == b'0' && self.at > start + 1;
        let more = matches!(
            self.bytes.get(self.at),
            Some(b'.' | b'e' | b'E' | b'+' | b'-')
        );
        if self.at == start || leading_zero || more || number > INTEGER_MAX {
            return Err(self.error(Code::BadNumber));
        }
        Ok(Value::Number(number))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        self.at += 1;
        let start = self.at;
        let mut owned: Option<String> = None;
        let mut plain_from = start;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    let plain = &self.text[plain_from..self.at];
                    self.at += 1;
                    return Ok(match owned {
                        None => Cow::Borrowed(plain),
                        Some(mut text) => {
                            text.push_str(plain);
                            Cow::Owned(text)
                        }
                    });
                }
                Some(b'\\') => {
                    let text = owned.get_or_insert_with(String::new);
                    text.push_str(&self.text[plain_from..self.at]);
                    let c = self.escape()?;
                    owned.get_or_insert_with(String::new).push(c);
                    plain_from = self.at;
                }
                // A raw control character inside a string is not JSON.
                Some(0x20..) => self.at += 1,
                _ => return Err(self.error(Code::Malformed)),
            }
        }
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let kind = self.bytes.get(self.at + 1).copied();
        self.at += 2;
        match kind {
            Some(b'"') => Ok('"'),
            Some(b'\\') => Ok('\\'),
            Some(b'/') => Ok('/'),
            Some(b'b') => Ok('\u{8}'),
            Some(b'f') => Ok('\u{c}'),
            Some(b'n') => Ok('\n'),
            Some(b'r') => Ok('\r'),
            Some(b't') => Ok('\t'),
            Some(b'u') => {
                let first = self.hex4()?;
                let code = if (0xd800..0xdc00).contains(&first) {
                    if self.bytes.get(self.at..self.at + 2) != Some(b"\\u") {
                        return Err(self.error(Code::Malformed));
                    }
                    self.at += 2;
                    let second = self.hex4()?;
                    if !(0xdc00..0xe000).contains(&second) {
                        return Err(self.error(Code::Malformed));
                    }
                    0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)
                } else {
                    first
                };
                char::from_u32(code).ok_or_else(|| self.error(Code::Malformed))
            }
            _ => Err(self.error(Code::Malformed)),
        }
    }

    fn hex4(&mut self) -> Result<u32, JsonError> {
        let digits = self
            .bytes
            .get(self.at..self.at + 4)
            .ok_or_else(|| self.error(Code::Malformed))?;
        let mut code = 0;
        for digit in digits {
            let value = (*digit as char)
                .to_digit(16)
                .ok_or_else(|| self.error(Code::Malformed))?;
            code = code * 16 + value;
        }
        self.at += 4;
        Ok(code)
    }

    fn list(&mut self) -> Result<Value<'a>, JsonError> {
        let mut items = Vec::new();
        self.blank();
        if self.bytes.get(self.at) == Some(&b']') {
            self.at += 1;
            return Ok(Value::List(items));
        }
        loop {
            items.push(self.value()?);
            self.blank();
            let end = self.bytes.get(self.at).copied();
            match end {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::List(items));
                }
                _ => return Err(self.error(Code::Malformed)),
            }
        }
    }

    fn object(&mut self) -> Result<Value<'a>, JsonError> {
        let mut fields: Vec<(Cow<'a, str>, Value<'a>)> = Vec::new();
        self.blank();
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok(Value::Object(fields));
        }
        loop {
            self.blank();
            if self.bytes.get(self.at) != Some(&b'"') {
                return Err(self.error(Code::Malformed));
            }
            let name = self.string()?;
            self.blank();
            if self.bytes.get(self.at) != Some(&b':') {
                return Err(self.error(Code::Malformed));
            }
            self.at += 1;
            let value = self.value()?;
            fields.push((name, value));
            self.blank();
            let end = self.bytes.get(self.at).copied();
            match end {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return match duplicate(&fields) {
                        None => Ok(Value::Object(fields)),
                        Some(name) => Err(JsonError {
                            code: Code::DuplicateField,
                            at: name,
                        }),
                    };
                }
                _ => return Err(self.error(Code::Malformed)),
            }
        }
    }
}

/// A name that stands twice, if any. Sorting keeps 10^4 fields from costing 10^8 comparisons.
fn duplicate(fields: &[(Cow<'_, str>, Value<'_>)]) -> Option<String> {
    if fields.len() <= 16 {
        let twice = |(i, (name, _)): (usize, &(Cow<'_, str>, _))| {
            fields[..i]
                .iter()
                .any(|(other, _)| other == name)
                .then(|| name.to_string())
        };
        return fields.iter().enumerate().find_map(twice);
    }
    let mut names: Vec<&str> = fields.iter().map(|(name, _)| name.as_ref()).collect();
    names.sort_unstable();
    names
        .windows(2)
        .find(|pair| pair[0] == pair[1])
        .map(|pair| pair[0].to_string())
}

impl serde::de::Error for JsonError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self {
            code: Code::BadValue,
            at: message.to_string(),
        }
    }
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self {
            code: Code::BadValue,
            at: format!("{unexpected}, expected {expected}"),
        }
    }
    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        let code = if matches!(unexpected, Unexpected::Unsigned(_)) {
            Code::OutOfRange
        } else {
            Code::BadValue
        };
        Self {
            code,
            at: format!("{unexpected}, expected {expected}"),
        }
    }
    fn unknown_field(field: &str, _expected: &'static [&'static str]) -> Self {
        Self {
            code: Code::UnknownField,
            at: field.to_string(),
        }
    }
    fn unknown_variant(variant: &str, _expected: &'static [&'static str]) -> Self {
        Self {
            code: Code::BadValue,
            at: variant.to_string(),
        }
    }
    fn missing_field(field: &'static str) -> Self {
        Self {
            code: Code::MissingField,
            at: field.to_string(),
        }
    }
    fn duplicate_field(field: &'static str) -> Self {
        Self {
            code: Code::DuplicateField,
            at: field.to_string(),
        }
    }
}

impl<'de> IntoDeserializer<'de, JsonError> for Value<'de> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// A decimal string for a number that may be above 2^53; one spelling only.
fn number_in_text(text: &str) -> Option<u64> {
    let plain =
        text.bytes().all(|b| b.is_ascii_digit()) && !(text.len() > 1 && text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

macro_rules! number {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            match self {
                Value::Text(text) => match number_in_text(&text) {
                    Some(number) => visitor.visit_u64(number),
                    None => Err(JsonError { code: Code::BadValue, at: text.into_owned() }),
                },
                other => other.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::Number(number) => visitor.visit_u64(number),
            Value::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Value::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Value::List(items) => {
                let mut list = SeqDeserializer::new(items.into_iter());
                let value = visitor.visit_seq(&mut list)?;
                list.end()?;
                Ok(value)
            }
            Value::Object(fields) => {
                let mut map = MapDeserializer::new(fields.into_iter().map(|(k, v)| (Name(k), v)));
                let value = visitor.visit_map(&mut map)?;
                map.end()?;
                Ok(value)
            }
        }
    }

    number! { deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self {
            Value::Null => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    // A derived visitor would also take a list of the fields in order; one document must have one spelling.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self {
            Value::Object(_) => self.deserialize_any(visitor),
            _ => Err(JsonError {
                code: Code::BadValue,
                at: name.to_string(),
            }),
        }
    }

    // Kinds are `{"kind": {...}}`, or `"kind"` where nothing belongs to it.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        let (kind, value) = match self {
            Value::Text(kind) => (kind, None),
            Value::Object(mut fields) if fields.len() == 1 => {
                let (kind, value) = fields.pop().expect("one field");
                (kind, Some(value))
            }
            _ => {
                return Err(JsonError {
                    code: Code::BadValue,
                    at: name.to_string(),
                });
            }
        };
        let unknown = std::cell::Cell::new(false);
        let at = kind.to_string();
        let result = visitor.visit_enum(Kind {
            kind,
            value,
            unknown: &unknown,
        });
        match result {
            Err(_) if unknown.get() && name == "Action" => Err(JsonError {
                code: Code::UnknownAction,
                at,
            }),
            other => other,
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct
        map identifier ignored_any
    }
}

/// A field name on its way into a typed key.
struct Name<'a>(Cow<'a, str>);

impl<'de> IntoDeserializer<'de, JsonError> for Name<'de> {
    type Deserializer = Value<'de>;
    fn into_deserializer(self) -> Value<'de> {
        Value::Text(self.0)
    }
}

struct Kind<'a, 'u> {
    kind: Cow<'a, str>,
    value: Option<Value<'a>>,
    unknown: &'u std::cell::Cell<bool>,
}

impl<'de> serde::de::EnumAccess<'de> for Kind<'de, '_> {
    type Error = JsonError;
    type Variant = Content<'de>;

    fn variant_seed<S: serde::de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Content<'de>), JsonError> {
        self.unknown.set(true);
        let kind = seed.deserialize(Value::Text(self.kind))?;
        self.unknown.set(false);
        Ok((kind, Content(self.value)))
    }
}

struct Content<'a>(Option<Value<'a>>);

impl<'de> Content<'de> {
    fn value(self) -> Result<Value<'de>, JsonError> {
        self.0.ok_or_else(|| JsonError {
            code: Code::BadValue,
            at: "a kind without its object".to_string(),
        })
    }
}

impl<'de> serde::de::VariantAccess<'de> for Content<'de> {
    type Error = JsonError;

    fn unit_variant(self) -> Result<(), JsonError> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(JsonError {
                code: Code::BadValue,
                at: "a kind that has no object".to_string(),
            }),
        }
    }
    fn newtype_variant_seed<T: serde::de::DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<T::Value, JsonError> {
        seed.deserialize(self.value()?)
    }
    fn tuple_variant<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.value()?.deserialize_any(visitor)
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        self.value()?.deserialize_struct("kind", &[], visitor)
    }
}

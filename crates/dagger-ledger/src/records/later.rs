//! How a record grows: a part that came later stands at its end, and is left out while it is empty. A record without it is
//! byte for byte what it was before the part existed, and has one form still.
//!
//! What must not live here: what any such part holds.

use std::io::{Error, ErrorKind, Read, Result, Write};

use borsh::{BorshDeserialize, BorshSerialize};

pub fn serialize<T: BorshSerialize + Default + PartialEq, W: Write>(
    part: &T,
    out: &mut W,
) -> Result<()> {
    if *part == T::default() {
        return Ok(());
    }
    part.serialize(out)
}

/// Reads to the end of the input: the record must be the last thing in it.
pub fn deserialize<T: BorshDeserialize + Default + PartialEq, R: Read>(input: &mut R) -> Result<T> {
    let mut first = Vec::new();
    input.take(1).read_to_end(&mut first)?;
    if first.is_empty() {
        return Ok(T::default());
    }
    let part = T::deserialize_reader(&mut first.chain(input))?;
    if part == T::default() {
        return Err(Error::new(
            ErrorKind::InvalidData,
            "an empty part is left out",
        ));
    }
    Ok(part)
}

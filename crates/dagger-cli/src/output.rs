//! What results look like: tables for people, JSON for programs, and the words both use.

use crate::failure::{Done, Failure};
use comfy_table::{Cell, CellAlignment, Table, presets};
use serde::Serialize;
use std::io::{self, Write};

/// Prints one JSON document.
pub fn json(value: &impl Serialize) -> Done {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::file("output", &error))?;
    line(&text)
}

/// Prints one JSON document on one line, for streams.
pub fn json_line(value: &impl Serialize) -> Done {
    let text = serde_json::to_string(value).map_err(|error| Failure::file("output", &error))?;
    line(&text)
}

/// Prints one line. A reader that has gone away ends the program quietly, as it does for other tools.
pub fn line(text: &str) -> Done {
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(Failure::file("output", &error)),
        Ok(()) => Ok(()),
    }
}

/// A table without borders, as wide as it needs to be.
pub struct Listing {
    table: Table,
    empty: &'static str,
}

impl Listing {
    /// `empty` is said instead when there are no rows. A column whose heading starts with `>` is of numbers.
    pub fn new(columns: &[&str], empty: &'static str) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(
            columns
                .iter()
                .map(|name| Cell::new(name.trim_start_matches('>'))),
        );
        for (index, name) in columns.iter().enumerate() {
            let column = table
                .column_mut(index)
                .expect("the header has just been set");
            column.set_padding((0, 2));
            if name.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, empty }
    }

    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.table.add_row(cells);
    }

    pub fn print(&self) -> Done {
        if self.table.row_count() == 0 {
            return line(self.empty);
        }
        for text in self.table.lines() {
            line(text.trim_end())?;
        }
        Ok(())
    }
}

/// Prints `key  value` lines, aligned; empty values are left out.
pub fn fields(fields: &[(&str, String)]) -> Done {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        line(&format!("{name:width$}  {value}"))?;
    }
    Ok(())
}

/// The first twelve characters of a key or digest: enough to tell them apart.
pub fn short(hex: &str) -> String {
    match hex.get(..12) {
        Some(start) => format!("{start}…"),
        None => hex.to_owned(),
    }
}

/// A size in MiB as people say it.
pub fn mib(mib: u64) -> String {
    match mib {
        0 => "0".to_owned(),
        _ if mib.is_multiple_of(1 << 20) => format!("{}T", mib >> 20),
        _ if mib.is_multiple_of(1 << 10) => format!("{}G", mib >> 10),
        _ => format!("{mib}M"),
    }
}

/// How long ago, seen from `now_ms`, in the largest unit that says something.
pub fn ago(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A time of day in UTC with milliseconds, for streams.
pub fn clock(time_ms: u64) -> String {
    timestamp(time_ms).map_or_else(
        || time_ms.to_string(),
        |t| t.strftime("%H:%M:%S%.3f").to_string(),
    )
}

/// A date and time in UTC, for records.
pub fn date(time_ms: u64) -> String {
    timestamp(time_ms).map_or_else(
        || time_ms.to_string(),
        |t| t.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
    )
}

fn timestamp(time_ms: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(time_ms).ok()?).ok()
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;

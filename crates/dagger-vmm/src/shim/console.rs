//! The console ring: the guest's serial output in two files of bounded size, the older one with the suffix `.1`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Most bytes of each of the two files.
pub const PART_BYTES_MAX: u64 = 256 * 1024;

/// Writes the ring.
pub struct ConsoleRing {
    path: PathBuf,
    file: File,
    length: u64,
}

impl ConsoleRing {
    /// Goes on where an earlier run stopped.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        let length = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
        })
    }

    /// Appends; turns over to a new file when this one is full. What a full disk refuses is lost, the guest is not held up.
    pub fn write(&mut self, bytes: &[u8]) {
        if self.length + bytes.len() as u64 > PART_BYTES_MAX && self.turn_over().is_err() {
            return;
        }
        let kept = &bytes[bytes.len().saturating_sub(PART_BYTES_MAX as usize)..];
        if self.file.write_all(kept).is_ok() {
            self.length += kept.len() as u64;
        }
    }

    fn turn_over(&mut self) -> io::Result<()> {
        let mut older = self.path.clone().into_os_string();
        older.push(".1");
        fs::rename(&self.path, older)?;
        self.file = File::options()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)?;
        self.length = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_stays_within_two_parts_and_the_newest_is_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("console.log");
        let mut ring = ConsoleRing::open(&path).expect("it opens");
        for number in 0..200_000 {
            ring.write(format!("line {number}\n").as_bytes());
        }
        drop(ring);
        let mut ring = ConsoleRing::open(&path).expect("it opens again");
        ring.write(b"the end\n");
        let newest = fs::read_to_string(&path).expect("it is there");
        let older = fs::read_to_string(dir.path().join("console.log.1")).expect("it is there");
        assert!(newest.len() as u64 <= PART_BYTES_MAX && older.len() as u64 <= PART_BYTES_MAX);
        assert!(newest.ends_with("line 199999\nthe end\n"));
        assert_eq!(fs::read_dir(dir.path()).expect("it lists").count(), 2);
    }
}

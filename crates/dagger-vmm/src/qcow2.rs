//! QEMU's qcow2 header: read with distrust, and written for an empty overlay.
//!
//! QEMU follows the file names in a header (backing file, external data file), so a header from a stranger is read here
//! first and refused when it names any. Format: QEMU's docs/interop/qcow2.txt.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: [u8; 4] = *b"QFI\xfb";
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_FULL_DISK_ENCRYPTION: u32 = 0x0537_be77;
/// Bits of `incompatible_features` that are harmless: a dirty refcount table (rebuilt on open), a compression type.
const INCOMPATIBLE_ALLOWED: u64 = 1 | 8;
/// Largest L1 table: QEMU's own bound.
const L1_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What is taken from a header that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qcow2 {
    /// Size of the disk the guest sees, bytes.
    pub virtual_bytes: u64,
}

/// Reads a header; says in words why it is refused.
///
/// # Errors
/// The reason, fit to follow "image X is refused: ".
pub fn inspect(file: &mut File) -> Result<Qcow2, String> {
    let file_bytes = file.seek(SeekFrom::End(0)).map_err(|e| e.to_string())?;
    file.rewind().map_err(|e| e.to_string())?;
    let mut head = Vec::new();
    // A header and its extensions lie in the first cluster, which has at most 2 MiB; 64 KiB is more than any honest one uses.
    file.take(64 * 1024)
        .read_to_end(&mut head)
        .map_err(|e| e.to_string())?;
    parse(&head, file_bytes)
}

fn parse(head: &[u8], file_bytes: u64) -> Result<Qcow2, String> {
    let u32_at = |at: usize| -> Result<u32, String> {
        let bytes = head.get(at..at + 4).ok_or("its header is cut off")?;
        Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
    };
    let u64_at = |at: usize| -> Result<u64, String> {
        Ok(u64::from(u32_at(at)?) << 32 | u64::from(u32_at(at + 4)?))
    };
    if head.get(..4) != Some(&MAGIC) {
        return Err("it is not qcow2".into());
    }
    let version = u32_at(4)?;
    if !(2..=3).contains(&version) {
        return Err(format!("qcow2 version {version} is unknown"));
    }
    if u64_at(8)? != 0 || u32_at(16)? != 0 {
        return Err("it names a backing file".into());
    }
    let cluster_bits = u32_at(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(format!(
            "its cluster size 2^{cluster_bits} is out of bounds"
        ));
    }
    let virtual_bytes = u64_at(24)?;
    if u32_at(32)? != 0 {
        return Err("it is encrypted".into());
    }
    let l1_bytes = u64::from(u32_at(36)?) * 8;
    let l1_offset = u64_at(40)?;
    let cluster = 1_u64 << cluster_bits;
    let l1_needed = virtual_bytes
        .div_ceil(cluster * (cluster / 8))
        .saturating_mul(8);
    if l1_bytes > L1_BYTES_MAX
        || l1_needed > l1_bytes
        || l1_offset.saturating_add(l1_bytes) > file_bytes
    {
        return Err("its size does not fit its tables".into());
    }
    let refcount_offset = u64_at(48)?;
    if refcount_offset == 0 || refcount_offset >= file_bytes {
        return Err("its reference counts lie outside of the file".into());
    }
    let mut at = 72;
    if version == 3 {
        let incompatible = u64_at(72)?;
        if incompatible & !INCOMPATIBLE_ALLOWED != 0 {
            return Err(match incompatible & !INCOMPATIBLE_ALLOWED {
                bits if bits & 4 != 0 => "it names an external data file".into(),
                bits if bits & 2 != 0 => "it is marked corrupt".into(),
                bits => format!("it wants unknown features ({bits:#x})"),
            });
        }
        at = u32_at(100)? as usize;
        if !(104..=4096).contains(&at) || !at.is_multiple_of(8) {
            return Err("its header length is out of bounds".into());
        }
    }
    extensions(head, at)?;
    Ok(Qcow2 { virtual_bytes })
}

/// Walks the header's extensions: (type, length, data padded to 8), until type 0.
fn extensions(head: &[u8], mut at: usize) -> Result<(), String> {
    loop {
        let Some(bytes) = head.get(at..at + 8) else {
            return Err("its header extensions have no end".into());
        };
        let kind = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
        let length = u32::from_be_bytes(bytes[4..].try_into().expect("four bytes")) as usize;
        match kind {
            0 => return Ok(()),
            EXTENSION_BACKING_FORMAT => return Err("it names a backing format".into()),
            EXTENSION_DATA_FILE => return Err("it names an external data file".into()),
            EXTENSION_FULL_DISK_ENCRYPTION => return Err("it is encrypted".into()),
            _ => {
                at = at
                    .saturating_add(8)
                    .saturating_add(length.next_multiple_of(8))
            }
        }
    }
}

/// Writes an empty qcow2 disk. It names no backing file: the one it lies over is given to QEMU by node, not by name.
///
/// # Errors
/// Those of the file system.
pub fn create_empty(path: &Path, virtual_bytes: u64) -> io::Result<()> {
    const CLUSTER_BITS: u32 = 16;
    const CLUSTER: u64 = 1 << CLUSTER_BITS;
    let l1_entries = virtual_bytes.div_ceil(CLUSTER * (CLUSTER / 8)).max(1);
    let l1_clusters = (l1_entries * 8).div_ceil(CLUSTER);
    // Cluster 0: header; 1: refcount table; 2: refcount block; 3..: L1 table.
    let used = 3 + l1_clusters;
    let mut header = Vec::with_capacity(128);
    header.extend_from_slice(&MAGIC);
    header.extend_from_slice(&3_u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]); // no backing file
    header.extend_from_slice(&CLUSTER_BITS.to_be_bytes());
    header.extend_from_slice(&virtual_bytes.to_be_bytes());
    header.extend_from_slice(&0_u32.to_be_bytes()); // no encryption
    header.extend_from_slice(
        &u32::try_from(l1_entries)
            .map_err(io::Error::other)?
            .to_be_bytes(),
    );
    header.extend_from_slice(&(3 * CLUSTER).to_be_bytes());
    header.extend_from_slice(&CLUSTER.to_be_bytes()); // refcount table
    header.extend_from_slice(&1_u32.to_be_bytes());
    header.extend_from_slice(&[0; 12]); // no snapshots
    header.extend_from_slice(&[0; 24]); // no features
    header.extend_from_slice(&4_u32.to_be_bytes()); // refcounts of 2^4 bits
    header.extend_from_slice(&104_u32.to_be_bytes());
    header.extend_from_slice(&[0; 8]); // no extensions
    let refcounts: Vec<u8> = (0..used).flat_map(|_| 1_u16.to_be_bytes()).collect();
    if refcounts.len() as u64 > CLUSTER {
        return Err(io::Error::other("disk too large for one refcount block"));
    }
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.set_len(used * CLUSTER)?;
    file.write_all(&header)?;
    file.seek(SeekFrom::Start(CLUSTER))?;
    file.write_all(&(2 * CLUSTER).to_be_bytes())?;
    file.seek(SeekFrom::Start(2 * CLUSTER))?;
    file.write_all(&refcounts)
}

/// Makes a disk that [`create_empty`] wrote larger; QEMU may have written to it since, but not now. A
/// disk never shrinks: a smaller size changes nothing.
///
/// # Errors
/// Those of the file system; a header that is not ours; a size that its table has no room for (4 TiB).
pub fn grow(path: &Path, virtual_bytes: u64) -> io::Result<()> {
    const CLUSTER: u64 = 1 << 16;
    let mut file = File::options().read(true).write(true).open(path)?;
    if inspect(&mut file).map_err(io::Error::other)?.virtual_bytes >= virtual_bytes {
        return Ok(());
    }
    let l1_entries = virtual_bytes.div_ceil(CLUSTER * (CLUSTER / 8));
    let mut field = [0; 4];
    file.seek(SeekFrom::Start(36))?;
    file.read_exact(&mut field)?;
    let old_entries = u64::from(u32::from_be_bytes(field));
    // The table fills whole clusters, and what is behind its end reads as zeros: not allocated.
    if l1_entries > (old_entries * 8).next_multiple_of(CLUSTER) / 8 {
        return Err(io::Error::other(
            "the disk's table has no room for that size",
        ));
    }
    let l1_entries = u32::try_from(l1_entries.max(old_entries)).map_err(io::Error::other)?;
    file.seek(SeekFrom::Start(36))?;
    file.write_all(&l1_entries.to_be_bytes())?;
    // The table first: a size that it does not cover would make the disk unreadable.
    file.sync_data()?;
    file.seek(SeekFrom::Start(24))?;
    file.write_all(&virtual_bytes.to_be_bytes())?;
    file.sync_data()
}

#[cfg(test)]
#[path = "qcow2_tests.rs"]
mod tests;

use std::io::{Cursor, Read};

use super::*;

#[test]
fn grub_for_bios_is_told_where_it_lies() {
    let core = located(&[7; 2000], 2048).unwrap();
    assert_eq!(core[500..508], 2049u64.to_le_bytes());
    assert_eq!((core[499], core[508], core.len()), (7, 7, 2000));
    let code = pointing(&[7; 512], 2048).unwrap();
    assert_eq!(code[0x5c..0x64], 2048u64.to_le_bytes());
    assert_eq!(
        (code[0x5b], code[0x64], code.len()),
        (7, 7, 440),
        "the partition table is not overwritten"
    );
}

#[test]
fn grub_that_does_not_fit_is_refused() {
    located(&vec![0; BIOS_BYTES as usize + 1], 2048).unwrap_err();
    located(&[0; 512], 2048).unwrap_err();
    efi_file_system(&vec![1; EFI_BYTES as usize]).unwrap_err();
}

#[test]
fn uefi_finds_the_application_by_its_usual_name() {
    let bytes = efi_file_system(b"MZ").unwrap();
    assert_eq!(bytes, efi_file_system(b"MZ").unwrap());
    let fs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
    let mut found = Vec::new();
    let mut file = fs.root_dir().open_file("EFI/BOOT/BOOTX64.EFI").unwrap();
    file.read_to_end(&mut found).unwrap();
    assert_eq!(found, b"MZ");
}

#[test]
fn the_table_is_in_sectors_and_gives_the_root_the_rest() {
    assert!(table().contains("disk1 : start=32768, size=4159488, "));
    assert!(table().contains("disk15 : start=4096, size=28672, "));
}

#[test]
fn inodes_in_use_are_read_from_debugfs() {
    let stats =
        "Inode count:              129984\nBlock count: 519936\nFree inodes:              110121\n";
    assert_eq!(used_inodes(stats), Some(19_863));
    assert_eq!(used_inodes("Inode count: 1\n"), None);
}

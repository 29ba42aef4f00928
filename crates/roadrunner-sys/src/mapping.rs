//! Calls that change what is mapped where. All addresses and lengths are in bytes and multiples
//! of [`crate::page_size`].

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr;

use crate::page_size;

/// Flags of every plain mapping. `MAP_NORESERVE` is what Wasmtime maps linear memory with: only
/// mappings with equal flags merge, and merging keeps their number bounded.
const PLAIN: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
const READ_WRITE: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;

/// Maps `len` bytes of fresh anonymous memory, private, readable and writable, all zero, at an
/// address that is a multiple of `align` (a power of two, at least a page). Costs no memory until
/// it is written.
///
/// # Errors
/// When the kernel has no address space or no mapping left.
pub fn reserve(len: usize, align: usize) -> io::Result<usize> {
    let slack = align.saturating_sub(page_size());
    let padded = len.checked_add(slack).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: the kernel picks a free range, so nothing that exists is touched.
    let start = unsafe { libc::mmap(ptr::null_mut(), padded, READ_WRITE, PLAIN, -1, 0) };
    let start = checked(start)?;
    let aligned = start.next_multiple_of(align);
    // SAFETY: both ranges lie in the memory mapped above, which nobody else knows of yet.
    unsafe { trim(start, aligned) };
    // SAFETY: as above.
    unsafe { trim(aligned + len, start + padded) };
    Ok(aligned)
}

/// Unmaps the bytes from `start` to `end`, which may be none. Where the kernel has no mapping left
/// to cut them off, they stay: address space without memory.
unsafe fn trim(start: usize, end: usize) {
    if start < end {
        // SAFETY: R1.
        let _ = unsafe { unmap(start, end - start) };
    }
}

/// Unmaps a range.
///
/// # Safety
/// The range is the caller's and nothing uses it any more.
///
/// # Errors
/// When the kernel has no mapping left to split one.
pub unsafe fn unmap(addr: usize, len: usize) -> io::Result<()> {
    // SAFETY: R1.
    zero_is_success(unsafe { libc::munmap(addr as *mut _, len) })
}

/// Replaces a range by fresh anonymous memory, private, readable and writable, all zero.
///
/// # Safety
/// The range is the caller's to rearrange and nothing borrows from it.
///
/// # Errors
/// When the kernel has no memory or no mapping left; the range is then unchanged or unmapped.
pub unsafe fn map_plain(addr: usize, len: usize) -> io::Result<()> {
    // SAFETY: R1.
    let got =
        unsafe { libc::mmap(addr as *mut _, len, READ_WRITE, PLAIN | libc::MAP_FIXED, -1, 0) };
    checked(got).map(drop)
}

/// Lays fresh anonymous memory, as [`map_plain`] does, over a range where nothing is mapped.
///
/// # Errors
/// When something is mapped there, or the kernel has no memory or no mapping left; nothing has
/// changed then.
pub fn map_plain_in_hole(addr: usize, len: usize) -> io::Result<()> {
    let flags = PLAIN | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the flag makes the kernel refuse wherever something that exists would be touched.
    checked(unsafe { libc::mmap(addr as *mut _, len, READ_WRITE, flags, -1, 0) }).map(drop)
}

/// Whether every page of a range is mapped.
#[must_use]
pub fn is_mapped(addr: usize, len: usize) -> bool {
    // SAFETY: since Linux 2.6.19 `MS_ASYNC` does nothing but look for holes in the range.
    unsafe { libc::msync(addr as *mut _, len, libc::MS_ASYNC) == 0 }
}

/// Replaces a range by a writable mapping of a file that others see the writes of.
///
/// # Safety
/// As [`map_plain`].
///
/// # Errors
/// As [`map_plain`], and when the file is sealed against writes.
pub unsafe fn map_shared(addr: usize, len: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: R1.
    unsafe { map_file(addr, len, fd, libc::MAP_SHARED) }
}

/// Replaces a range by a private copy-on-write view of a file.
///
/// # Safety
/// As [`map_plain`].
///
/// # Errors
/// As [`map_plain`].
pub unsafe fn map_private(addr: usize, len: usize, fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: R1.
    unsafe { map_file(addr, len, fd, libc::MAP_PRIVATE | libc::MAP_NORESERVE) }
}

unsafe fn map_file(
    addr: usize,
    len: usize,
    fd: BorrowedFd<'_>,
    kind: libc::c_int,
) -> io::Result<()> {
    let flags = kind | libc::MAP_FIXED;
    // SAFETY: R1.
    let got = unsafe { libc::mmap(addr as *mut _, len, READ_WRITE, flags, fd.as_raw_fd(), 0) };
    checked(got).map(drop)
}

/// Moves the pages of one range to another, replacing what was mapped there. The source stays
/// mapped; where it is anonymous memory it reads as zeros afterwards, where it maps a file it
/// shows the file again.
///
/// One `mremap` with `MREMAP_DONTUNMAP` (Linux 5.7; for file mappings 5.13), which moves page
/// table entries, and whole page-middle directories where both addresses are 2-MiB-aligned.
///
/// # Safety
/// Both ranges are the caller's to rearrange, they don't overlap, nothing borrows from them, and
/// the source is one mapping.
///
/// # Errors
/// When the kernel has no mapping left, or the source is more than one mapping.
pub unsafe fn move_pages(from: usize, to: usize, len: usize) -> io::Result<()> {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP;
    // SAFETY: R1.
    let got = unsafe { libc::mremap(from as *mut _, len, len, flags, to as *mut libc::c_void) };
    checked(got).map(drop)
}

/// Makes a mapping longer or shorter, and says where it is then: elsewhere, with its pages, where
/// there is no room behind it. What is new of anonymous memory is zero.
///
/// # Safety
/// The range is the caller's to rearrange, it is one mapping, and nothing borrows from it; a file that
/// it maps is at least as long as it becomes.
///
/// # Errors
/// When the kernel has no address space, memory or mapping left; nothing has changed then.
pub unsafe fn resize(addr: usize, len: usize, new_len: usize) -> io::Result<usize> {
    // SAFETY: R1.
    checked(unsafe { libc::mremap(addr as *mut _, len, new_len, libc::MREMAP_MAYMOVE) })
}

/// Drops the pages of a range of anonymous memory, which reads as zeros afterwards.
///
/// # Safety
/// The range is the caller's and nothing borrows from it.
///
/// # Errors
/// When the range is not mapped.
pub unsafe fn discard_pages(addr: usize, len: usize) -> io::Result<()> {
    // SAFETY: R1.
    zero_is_success(unsafe { libc::madvise(addr as *mut _, len, libc::MADV_DONTNEED) })
}

/// What a range will be used for. None of these changes what can be read there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Back it with huge pages where they fit (`MADV_HUGEPAGE`).
    HugePages,
}

/// Gives advice on a mapped range.
///
/// # Errors
/// When the kernel doesn't know the advice or the range is not mapped.
pub fn advise(addr: usize, len: usize, advice: Advice) -> io::Result<()> {
    let advice = match advice {
        Advice::HugePages => libc::MADV_HUGEPAGE,
    };
    // SAFETY: both kinds of advice leave the contents of memory as they are.
    zero_is_success(unsafe { libc::madvise(addr as *mut _, len, advice) })
}

/// Whether a private view of a file has been written to: whether any of its pages is no longer
/// the file's own (bit 61 of `/proc/self/pagemap`, see the kernel's `admin-guide/mm/pagemap`).
///
/// # Errors
/// When `/proc` is not mounted or can't be read.
pub fn is_modified(addr: usize, len: usize) -> io::Result<bool> {
    const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
    const FILE_OR_SHARED: u64 = 1 << 61;
    const ENTRY: usize = size_of::<u64>();
    let pagemap = File::open("/proc/self/pagemap")?;
    let mut chunk = [0_u8; 4096];
    let mut offset = addr / page_size() * ENTRY;
    let end = offset + len / page_size() * ENTRY;
    while offset < end {
        let part = (end - offset).min(chunk.len());
        let part = &mut chunk[..part];
        pagemap.read_exact_at(part, offset as u64)?;
        let changed = part.chunks_exact(ENTRY).any(|entry| {
            let entry = entry.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
            entry & PRESENT_OR_SWAPPED != 0 && entry & FILE_OR_SHARED == 0
        });
        if changed {
            return Ok(true);
        }
        offset += part.len();
    }
    Ok(false)
}

/// Bytes of a range that are in memory, in whole pages: its own and those of files that it maps. Where some of it is not
/// mapped it counts too little.
///
/// # Errors
/// When the kernel can't tell.
pub fn resident_bytes(addr: usize, len: usize) -> io::Result<u64> {
    /// Pages asked for at once: a byte each.
    const CHUNK: usize = 16 << 10;
    let page = page_size();
    let (mut flags, mut resident) = ([0_u8; CHUNK], 0);
    let (mut at, end) = (addr / page * page, addr.saturating_add(len));
    while at < end {
        let pages = (end - at).div_ceil(page).min(CHUNK);
        // SAFETY: R3, the kernel writes a byte for each page to a local that has room for them.
        let told = unsafe { libc::mincore(at as *mut _, pages * page, flags.as_mut_ptr()) };
        if told == 0 {
            let counted = flags[..pages].iter().filter(|flag| **flag & 1 == 1);
            resident += counted.count() as u64 * page as u64;
        } else {
            let error = io::Error::last_os_error();
            // Part of it is not mapped.
            if error.raw_os_error() != Some(libc::ENOMEM) {
                return Err(error);
            }
        }
        at += pages * page;
    }
    Ok(resident)
}

/// Whether a range is one shared mapping of a file's first bytes, and nothing else: the file with this
/// number ([`crate::Memfd::id`]). `false` also where `/proc` can't be read.
#[must_use]
pub fn is_whole_file(addr: usize, len: usize, id: u64) -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return false };
    let range = format!("{addr:x}-{:x}", addr + len);
    maps.lines().any(|line| {
        // Range, rights, offset, device, number of the file.
        let mut fields = line.split_ascii_whitespace();
        fields.next() == Some(&*range)
            && fields.next().is_some_and(|rights| rights.ends_with('s'))
            && fields.next().is_some_and(|offset| offset.bytes().all(|digit| digit == b'0'))
            && fields.nth(1).and_then(|number| number.parse().ok()) == Some(id)
    })
}

fn checked(got: *mut libc::c_void) -> io::Result<usize> {
    if got == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(got as usize) }
}

fn zero_is_success(got: libc::c_int) -> io::Result<()> {
    if got == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Memfd;
    use std::os::fd::AsFd;

    /// Anonymous test memory of `pages` pages that is unmapped in the end.
    struct Area(usize, usize);

    impl Area {
        fn new(pages: usize) -> Self {
            let len = pages * page_size();
            Self(reserve(len, page_size()).unwrap(), len)
        }
        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the range is mapped readable and writable while `self` lives.
            unsafe { std::slice::from_raw_parts_mut(self.0 as *mut u8, self.1) }
        }
    }

    impl Drop for Area {
        fn drop(&mut self) {
            // SAFETY: the range is this value's.
            unsafe { unmap(self.0, self.1) }.unwrap();
        }
    }

    #[test]
    fn pages_are_resident_once_they_are_written() {
        let mut area = Area::new(40);
        let Area(addr, len) = area;
        assert_eq!(resident_bytes(addr, len).unwrap(), 0);
        for page in [0, 7, 39] {
            area.bytes()[page * page_size()] = 1;
        }
        assert_eq!(resident_bytes(addr, len).unwrap(), 3 * page_size() as u64);
        assert_eq!(resident_bytes(addr, 8 * page_size()).unwrap(), 2 * page_size() as u64);
        assert_eq!(resident_bytes(addr, 0).unwrap(), 0);
    }

    #[test]
    fn reservations_are_aligned() {
        let addr = reserve(4 << 20, 2 << 20).unwrap();
        assert_eq!(addr % (2 << 20), 0);
        // SAFETY: reserved above.
        unsafe { unmap(addr, 4 << 20) }.unwrap();
    }

    #[test]
    fn holes_are_found_and_only_holes_are_filled() {
        let page = page_size();
        let area = Area::new(3);
        assert!(is_mapped(area.0, area.1));
        // SAFETY: the page is this test's.
        unsafe { unmap(area.0 + page, page) }.unwrap();
        assert!(!is_mapped(area.0, area.1));
        assert!(map_plain_in_hole(area.0, area.1).is_err());
        map_plain_in_hole(area.0 + page, page).unwrap();
        assert!(is_mapped(area.0, area.1));
    }

    #[test]
    fn moved_pages_leave_zeros_behind() {
        let (mut a, mut b) = (Area::new(3), Area::new(3));
        a.bytes().fill(7);
        // SAFETY: both ranges are this test's and unborrowed.
        unsafe { move_pages(a.0, b.0, a.1) }.unwrap();
        assert!(a.bytes().iter().all(|byte| *byte == 0));
        assert!(b.bytes().iter().all(|byte| *byte == 7));
    }

    #[test]
    fn a_private_view_tells_whether_it_was_written() {
        let len = 5 * page_size();
        let memfd = Memfd::new(len).unwrap();
        let mut a = Area::new(5);
        // SAFETY: the range is this test's and unborrowed.
        unsafe { map_private(a.0, a.1, memfd.as_fd()) }.unwrap();
        assert!(!is_modified(a.0, a.1).unwrap());
        assert_eq!(a.bytes().iter().map(|byte| u32::from(*byte)).sum::<u32>(), 0);
        assert!(!is_modified(a.0, a.1).unwrap(), "reading is not writing");
        a.bytes()[4 * page_size()] = 1;
        assert!(is_modified(a.0, a.1).unwrap());
    }
}

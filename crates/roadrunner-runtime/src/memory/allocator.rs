//! Ranges that the guest's own allocator gives, which are believed only when checked.
#![forbid(unsafe_code)]

use std::ops::Range;

use roadrunner_abi::limit;
use wasmtime::TypedFunc;

use super::{Guest, GuestError};

/// The guest's allocator.
#[derive(Clone)]
pub(crate) struct Allocator {
    pub(crate) allocate: Allocate,
    pub(crate) deallocate: Option<TypedFunc<u32, ()>>,
}

/// The function that gives memory.
#[derive(Clone)]
pub(crate) enum Allocate {
    Plain(TypedFunc<u32, u32>),
    Realloc(TypedFunc<(u32, u32, u32, u32), u32>),
}

/// A range that the guest's allocator gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Raw {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Raw {
    pub(super) fn range(self) -> Range<u64> {
        u64::from(self.start)..u64::from(self.start) + u64::from(self.len)
    }
}

pub(super) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Guest<'_> {
    /// Memory of `len` bytes: a spent range, or what the guest's allocator gives. One that has nothing
    /// left gets its spent ranges back and is asked again.
    pub(super) fn allocate(&mut self, len: u32) -> Result<Raw, GuestError> {
        let refused = match self.allocate_once(len) {
            Err(GuestError::NoMemory(reason)) => reason,
            given => return given,
        };
        let spent = std::mem::take(&mut self.mem()?.spent);
        if spent.is_empty() {
            return Err(GuestError::NoMemory(refused));
        }
        for raw in spent {
            self.deallocate(raw)?;
        }
        self.allocate_once(len)
    }

    /// Asks the guest's allocator for `len` bytes and checks the answer.
    fn allocate_once(&mut self, len: u32) -> Result<Raw, GuestError> {
        let mem = self.mem()?;
        if mem.held.len() >= limit::BUFFERS {
            return Err(GuestError::Limit("the number of buffers of one instance"));
        }
        let kept = mem.spent.iter().position(|raw| raw.len >= len && raw.len / 2 <= len);
        if let Some(at) = kept {
            return Ok(mem.spent.swap_remove(at));
        }
        let Some(allocator) = mem.allocator.clone() else {
            return Err(GuestError::Violation("it exports no allocator".into()));
        };
        mem.allocating = true;
        let answer = match &allocator.allocate {
            Allocate::Plain(allocate) => allocate.call(&mut self.0, len),
            Allocate::Realloc(realloc) => realloc.call(&mut self.0, (0, 0, 16, len)),
        };
        self.mem()?.allocating = false;
        let raw = Raw { start: answer.map_err(GuestError::Stopped)?, len };
        self.check_given(raw)?;
        Ok(raw)
    }

    /// Checks that the guest's allocator gave memory that exists and that nobody has.
    fn check_given(&mut self, raw: Raw) -> Result<(), GuestError> {
        let memory = self.handle()?;
        let size = memory.data_size(&self.0) as u64;
        let range = raw.range();
        let (start, len) = (raw.start, raw.len);
        if start == 0 {
            let left = self.0.data().memory_limit.saturating_sub(size);
            return Err(GuestError::NoMemory(format!(
                "allocate_memory({len}) gave nothing, with {size} bytes of linear memory in use and \
                 {left} more allowed"
            )));
        }
        if range.end > size {
            return Err(GuestError::Violation(format!(
                "allocate_memory({len}) gave {start}, which ends beyond its linear memory of {size} bytes"
            )));
        }
        if self.mem()?.raw_ranges().any(|other| overlap(&range, &other)) {
            return Err(GuestError::Violation(format!(
                "allocate_memory({len}) gave {start}, which overlaps memory that it gave before"
            )));
        }
        Ok(())
    }

    /// Gives a range back to the guest's allocator, if that takes any.
    pub(super) fn deallocate(&mut self, raw: Raw) -> Result<(), GuestError> {
        let mem = self.mem()?;
        let deallocate = mem.allocator.as_ref().and_then(|it| it.deallocate.clone());
        let Some(deallocate) = deallocate else { return Ok(()) };
        mem.allocating = true;
        let answer = deallocate.call(&mut self.0, raw.start);
        self.mem()?.allocating = false;
        answer.map_err(GuestError::Stopped)
    }
}

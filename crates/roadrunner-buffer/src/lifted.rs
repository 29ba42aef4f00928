//! Payloads that left their lender's memory and have not landed.

use std::io;
use std::sync::Arc;

use crate::page::round_to_pages;
use crate::pool::Home;
use crate::segment::Lease;
use crate::shared::SharedPages;
use crate::view::Extent;
use crate::window::{Source, Window};
use crate::{BufferError, doing};

/// A lifted payload, in its own right or somebody's who keeps it if it doesn't land.
#[derive(Debug)]
pub(crate) enum Hold<'a> {
    Own(Lifted),
    Lent(&'a mut Lifted),
}

impl Hold<'_> {
    pub(crate) fn get(&self) -> &Lifted {
        match self {
            Self::Own(lifted) => lifted,
            Self::Lent(lifted) => lifted,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Lifted {
        match self {
            Self::Own(lifted) => lifted,
            Self::Lent(lifted) => lifted,
        }
    }

    pub(crate) fn take(self) -> Lifted {
        match self {
            Self::Own(lifted) => lifted,
            Self::Lent(lifted) => lifted.take(),
        }
    }
}

/// Anonymous pages, or pages of a view or segment, in a range of the pool's own.
#[derive(Debug)]
pub(crate) struct Lifted {
    /// Always there until the value is taken apart.
    slot: Option<Extent>,
    source: Option<Source>,
    home: Home,
}

impl Lifted {
    /// The pages of a range of the pool's.
    pub(crate) fn of(slot: Extent, home: &Home) -> Self {
        Self { slot: Some(slot), source: None, home: home.clone() }
    }

    /// Takes the pages out of a window.
    pub(crate) fn out_of(window: &mut Window, len: usize) -> Result<Self, BufferError> {
        let home = window.home().clone();
        let pages = round_to_pages(len).unwrap_or(len);
        let mut slot = home.pool.empty(pages).map_err(doing("reserve address space", len))?;
        let source = window.give(&mut slot)?;
        Ok(Self { slot: Some(slot), source, home })
    }

    /// Recycled or new pages, whose first `len` bytes `write` fills.
    pub(crate) fn write(
        len: usize,
        home: &Home,
        write: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> Result<Self, BufferError> {
        let pages = round_to_pages(len).unwrap_or(len);
        let mut slot = home.pool.empty(pages).map_err(doing("reserve address space", len))?;
        home.pool.fill(&mut slot, home.domain).map_err(doing("move recycled pages in", len))?;
        write(&mut slot.bytes_mut()[..len]).map_err(doing("write a payload", len))?;
        slot.bytes_mut()[len..].fill(0);
        Ok(Self::of(slot, home))
    }

    /// Whether everything was taken out.
    pub(crate) fn is_gone(&self) -> bool {
        self.slot.is_none()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.slot.as_ref().map_or(&[], Extent::bytes)
    }

    /// What its pages are a view of that nobody has written to.
    pub(crate) fn unmodified(&self) -> Option<&Arc<SharedPages>> {
        let modified = |slot: &Extent| slot.is_modified().unwrap_or(true);
        match &self.source {
            Some(Source::View(pages)) if !self.slot.as_ref().is_none_or(modified) => Some(pages),
            _ => None,
        }
    }

    /// The lease of the segment that its pages are part of.
    pub(crate) fn lease(&self) -> Option<&Arc<Lease>> {
        match &self.source {
            Some(Source::Leased(lease)) => Some(lease),
            _ => None,
        }
    }

    /// Moves the pages over `target`, and says what they are part of.
    pub(crate) fn give(&mut self, target: &mut Extent) -> Result<Option<Source>, BufferError> {
        let Some(mut slot) = self.slot.take() else {
            return Ok(None);
        };
        if let Err(error) = target.take_pages(&mut slot) {
            let error = doing("move pages", slot.range().len())(error);
            self.slot = Some(slot);
            return Err(error);
        }
        let source = self.source.take();
        if source.is_none() {
            self.home.pool.keep_empty(slot);
        }
        Ok(source)
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> Self {
        Self { slot: self.slot.take(), source: self.source.take(), home: self.home.clone() }
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        let Some(mut slot) = self.slot.take() else { return };
        match &self.source {
            None => self.home.pool.shelve(slot, self.home.domain),
            // Unmapped instead: its pages are the memfd's.
            Some(Source::View(_)) => {}
            Some(Source::Leased(lease)) => lease.segment.take_back(&mut slot),
        }
    }
}

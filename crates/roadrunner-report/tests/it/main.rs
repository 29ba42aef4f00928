//! The program as a whole, over made-up results.

mod browser;
mod check;
mod made_up;
mod page;
mod screens;

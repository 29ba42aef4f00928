//! No descriptors: the limit of this process, which is caller and node at once, is lowered to a few
//! more than are open.

use std::time::Duration;

use roadrunner_transport::conformance::ECHO;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::books::limit_with_left;
use crate::dice::Dice;
use crate::world::{Outcome, Way, World};

/// A deadline for calls that a node can't take in before they have ended.
const TIME: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    way: Way,
    /// Descriptors that are free.
    left: u64,
    /// A call went well over the connection before.
    warm: bool,
}

impl Plan {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let left = dice.below(8) as u64;
        Self { way: Way::draw(dice), left, warm: dice.one_in(2) }
    }

    #[allow(clippy::unused_self, reason = "as of the other plans")]
    pub(crate) fn kind(&self) -> &'static str {
        "EMFILE at caller and node"
    }
}

pub(crate) fn run(plan: Plan, world: &World, dice: &mut Dice) -> Result<Outcome, String> {
    let client = world.client(plan.way, world.address(plan.way));
    if plan.warm {
        let first = world.tagged(dice);
        world.call(&*client, (plan.way, ECHO), &first, crate::world::PLENTY)?;
    }
    let tagged = world.tagged(dice);
    // Made before: what fails is to be the call.
    let payload = world.payload(plan.way, &tagged);
    let before = getrlimit(Resource::Nofile);
    let limit = Some(limit_with_left(std::process::id(), plan.left));
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: before.maximum }).unwrap();
    let ended = crate::world::attempt(&*client, ECHO, payload, &tagged, TIME);
    setrlimit(Resource::Nofile, before).unwrap();
    let (outcome, entries, _) = ended?;
    drop(client);
    world.expect(tagged.tag, entries)?;
    world.serves(plan.way, dice)?;
    Ok(outcome)
}

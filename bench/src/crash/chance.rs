//! Chance that can be repeated: the same seed gives the same kill times and the same delays of the fake upstreams.
//!
//! What the operating system does between two of these numbers cannot be repeated, so a seed narrows a failure down;
//! it does not replay it to the instruction.

/// A stream of numbers (`SplitMix64`; Steele, Lea, Flood 2014).
#[derive(Debug, Clone)]
pub(crate) struct Chance {
    state: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// An independent stream for part `number` of what this one decides.
    pub(crate) fn branch(&self, number: u64) -> Self {
        let mut other = Self::new(self.state ^ number.wrapping_mul(0xd134_2543_de82_ef95));
        other.next();
        other
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from `from` up to and including `to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to.saturating_sub(from) + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::Chance;

    /// First values of the reference implementation for seed 0.
    #[test]
    fn numbers_are_those_of_the_published_generator() {
        let mut chance = Chance::new(0);
        assert_eq!(
            [chance.next(), chance.next()],
            [0xe220_a839_7b1d_cdaf, 0x6e78_9e6a_a1b9_65f4]
        );
    }

    #[test]
    fn both_ends_are_reached() {
        let mut chance = Chance::new(7);
        let mut seen: Vec<_> = (0..64).map(|_| chance.between(3, 5)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen, [3, 4, 5]);
    }
}

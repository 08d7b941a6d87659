//! Sets of small numbers as bits: the positions of events within one round.

/// Positions below 256 stand inline, which every round without hundreds of twins fits; the rest spills over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexSet {
    inline: [u64; 4],
    spill: Vec<u64>,
}

impl IndexSet {
    #[inline]
    pub(crate) fn insert(&mut self, index: u16) {
        let (word, bit) = (usize::from(index) / 64, 1 << (index % 64));
        if word < 4 {
            self.inline[word] |= bit;
            return;
        }
        if self.spill.len() <= word - 4 {
            self.spill.resize(word - 3, 0);
        }
        self.spill[word - 4] |= bit;
    }

    pub(crate) fn contains(&self, index: u16) -> bool {
        self.word(usize::from(index) / 64) & (1 << (index % 64)) != 0
    }

    fn word(&self, word: usize) -> u64 {
        let spilled = || self.spill.get(word - 4).copied().unwrap_or(0);
        if word < 4 {
            self.inline[word]
        } else {
            spilled()
        }
    }

    fn words(&self) -> impl Iterator<Item = u64> + '_ {
        self.inline.iter().chain(&self.spill).copied()
    }

    /// How many positions are in.
    pub(crate) fn len(&self) -> u32 {
        self.words().map(u64::count_ones).sum()
    }

    /// How many positions are in both.
    pub(crate) fn overlap(&self, other: &Self) -> u32 {
        let inline = self.inline.iter().zip(&other.inline);
        let spill = self.spill.iter().zip(&other.spill);
        inline.chain(spill).map(|(a, b)| (a & b).count_ones()).sum()
    }

    /// Whether all positions are in the other set, too.
    pub(crate) fn is_within(&self, other: &Self) -> bool {
        let inline = self.inline.iter().zip(&other.inline);
        let beyond = inline.fold(0, |beyond, (a, b)| beyond | (a & !b));
        let spilled = (4..).zip(&self.spill);
        beyond == 0 && spilled.into_iter().all(|(at, a)| a & !other.word(at) == 0)
    }

    /// The positions in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        bits(self.words())
    }

    /// The positions in `self` and not in `other`, in ascending order.
    pub(crate) fn minus<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = u16> + 'a {
        bits(
            self.words()
                .enumerate()
                .map(|(at, word)| word & !other.word(at)),
        )
    }
}

fn bits(words: impl Iterator<Item = u64>) -> impl Iterator<Item = u16> {
    words.zip(0u16..).flat_map(|(mut rest, at)| {
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros() as u16)?;
            rest &= rest - 1;
            Some(at * 64 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::IndexSet;

    #[test]
    fn sets_hold_positions_on_both_sides_of_the_spill() {
        let (mut a, mut b) = (IndexSet::default(), IndexSet::default());
        for index in [0, 63, 255, 256, 700] {
            a.insert(index);
        }
        for index in [63, 256, 257] {
            b.insert(index);
        }
        assert_eq!(a.iter().collect::<Vec<_>>(), [0, 63, 255, 256, 700]);
        assert_eq!((a.len(), a.overlap(&b), b.overlap(&a)), (5, 2, 2));
        assert_eq!(a.minus(&b).collect::<Vec<_>>(), [0, 255, 700]);
        assert_eq!(b.minus(&a).collect::<Vec<_>>(), [257]);
        assert!(a.contains(700) && !a.contains(699) && !b.contains(700));
        assert!(a.is_within(&a) && !a.is_within(&b) && !b.is_within(&a));
        let mut c = a.clone();
        c.insert(701);
        assert!(a.is_within(&c) && !c.is_within(&a));
        let mut d = a.clone();
        d.insert(3);
        assert!(a.is_within(&d) && !d.is_within(&a));
        assert!(IndexSet::default().is_within(&a));
    }
}

//! A list that shares its parts with its clones.
//!
//! Every decision is made on a clone of the run. A loop of ten thousand items must not be copied for it, nor be walked to
//! count references: a clone costs one step per part, and a change copies the part that it touches.

use std::sync::Arc;

/// Elements of a part: about the square root of the longest list, where a clone and a change cost the same.
const PART: usize = 128;

/// A list in parts of [`PART`]; only the last may be shorter.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parts<T> {
    parts: Vec<Arc<Vec<T>>>,
}

impl<T> Default for Parts<T> {
    fn default() -> Self {
        Self { parts: Vec::new() }
    }
}

impl<T> Parts<T> {
    pub(super) fn len(&self) -> usize {
        let last = self.parts.last().map_or(0, |part| part.len());
        self.parts.len().saturating_sub(1) * PART + last
    }

    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.parts.get(at / PART)?.get(at % PART)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

impl<T: Clone> Parts<T> {
    /// An element, to be changed. Clones of the list keep what they have.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Arc::make_mut(self.parts.get_mut(at / PART)?).get_mut(at % PART)
    }

    pub(super) fn push(&mut self, element: T) {
        match self.parts.last_mut().filter(|part| part.len() < PART) {
            Some(part) => Arc::make_mut(part).push(element),
            None => self.parts.push(Arc::new(vec![element])),
        }
    }
}

impl<T: Clone> FromIterator<T> for Parts<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut list = Self::default();
        elements.into_iter().for_each(|element| list.push(element));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_list() {
        for len in [0, 1, PART - 1, PART, PART + 1, 3 * PART, 1000] {
            let mut list: Parts<usize> = (0..len).collect();
            assert_eq!(list.len(), len);
            assert!(list.iter().copied().eq(0..len) && list.iter().rev().copied().eq((0..len).rev()));
            assert_eq!(list.get(len), None);
            assert_eq!(list.get_mut(len), None);
            list.push(len);
            assert_eq!((list.len(), list.get(len)), (len + 1, Some(&len)));
        }
    }

    #[test]
    fn a_change_touches_no_clone_and_copies_one_part() {
        let before: Parts<usize> = (0..10 * PART).collect();
        let mut after = before.clone();
        *after.get_mut(3 * PART + 5).unwrap() = 0;
        after.push(7);
        assert_eq!(before.get(3 * PART + 5), Some(&(3 * PART + 5)));
        assert_eq!((before.len(), after.len()), (10 * PART, 10 * PART + 1));
        let shared = before.parts.iter().zip(&after.parts);
        assert_eq!(shared.filter(|(before, after)| Arc::ptr_eq(before, after)).count(), 9);
    }
}

//! Names of steps for people: what a path tells by a hash is told by its place.
//!
//! Paths stay what they are: they name steps in journals, in effect keys and to programs.

use std::collections::BTreeMap;

use crate::effect::fingerprint;
use crate::journal::{Entry, Item};

/// Where the items of `for_each` steps stand that have no readable key of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepNames {
    /// By the path of the item, such as `lines[0f5e…]`: its place in the list, from 1.
    places: BTreeMap<String, usize>,
}

impl StepNames {
    /// Takes in what a journal tells.
    pub fn note(&mut self, entry: &Entry) {
        let Entry::Items(taken) = entry else { return };
        // Beside readable keys a place would be taken for one of them.
        if taken.items.iter().all(is_hashed) {
            for (place, item) in taken.items.iter().enumerate() {
                self.places.insert(format!("{}[{}]", taken.step, item.key), place + 1);
            }
        }
    }

    /// Takes in the names of a run that the step with this path starts.
    pub(crate) fn add_run(&mut self, path: &str, of: Self) {
        let places = of.places.into_iter();
        self.places
            .extend(places.map(|(item, place)| (format!("{path}/{item}"), place)));
    }

    /// The step at this path as people name it: `lines[3].push` for the third of the lines.
    pub fn name(&self, path: &str) -> String {
        let mut name = String::with_capacity(path.len());
        let mut told = 0;
        for (end, _) in path.match_indices(']') {
            let place = path.get(..=end).and_then(|item| self.places.get(item));
            let key = path.get(..end).and_then(|before| before.rfind('['));
            if let (Some(place), Some(key)) = (place, key) {
                name.push_str(path.get(told..=key).unwrap_or_default());
                name.push_str(&place.to_string());
                told = end;
            }
        }
        name.push_str(path.get(told..).unwrap_or_default());
        name
    }
}

/// Whether a path may name an item by a hash, so that its name is worth to be looked for.
pub fn may_hide_an_item(path: &str) -> bool {
    let keys = path.split('[').skip(1);
    keys.filter_map(|rest| rest.split(']').next()).any(|key| {
        let hash = key.strip_prefix('~').unwrap_or(key);
        let hash = hash.split('~').next().unwrap_or(hash);
        hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Whether the key of an item is a hash: of its content, when the author gives none, or of a key that fits in no path.
fn is_hashed(item: &Item) -> bool {
    match item.key.split_once('~') {
        Some(("", _)) => true,
        Some((hash, _)) => fingerprint(item.value.value()) == hash,
        None => fingerprint(item.value.value()) == *item.key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_run_that_an_item_starts_are_told_by_their_places() {
        let places = |step: &str, key: &str, place| StepNames {
            places: BTreeMap::from([(format!("{step}[{key}]"), place)]),
        };
        let (outer, inner) = ("0f5e0f5e0f5e0f5e", "1a2b1a2b1a2b1a2b");
        let mut names = places("orders", outer, 3);
        names.add_run(&format!("orders[{outer}].bill"), places("lines", inner, 2));
        assert_eq!(
            names.name(&format!("orders[{outer}].bill/lines[{inner}].charge")),
            "orders[3].bill/lines[2].charge"
        );
    }
}

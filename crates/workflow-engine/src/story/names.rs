//! Names of steps for people: what a path tells by a hash is told by its place.
//!
//! Paths stay what they are: they name steps in journals, in effect keys and to programs.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::effect::fingerprint;
use crate::journal::{Entry, Item};

/// Where the items of `for_each` steps stand that have no readable key of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepNames {
    /// By the path of the step that has the items.
    lists: BTreeMap<Arc<str>, List>,
}

/// The items of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
struct List {
    items: Arc<[Item]>,
    /// The place of each key, from 1; empty when the items have readable keys. Found out when somebody asks: a run may
    /// have thousands of lists, and few of them are named.
    places: OnceLock<BTreeMap<Arc<str>, usize>>,
}

impl List {
    fn place(&self, key: &str) -> Option<usize> {
        let places = self.places.get_or_init(|| {
            // Beside readable keys a place would be taken for one of them.
            if !self.items.iter().all(is_hashed) {
                return BTreeMap::new();
            }
            let keys = self.items.iter().map(|item| Arc::clone(&item.key));
            keys.zip(1..).collect()
        });
        places.get(key).copied()
    }
}

impl StepNames {
    /// Takes in what a journal tells.
    pub fn note(&mut self, entry: &Entry) {
        let Entry::Items(taken) = entry else { return };
        let list = List {
            items: Arc::clone(&taken.items),
            places: OnceLock::new(),
        };
        self.lists.insert(Arc::clone(&taken.step), list);
    }

    /// Takes in the names of a run that the step with this path starts.
    pub(crate) fn add_run(&mut self, path: &str, of: Self) {
        let lists = of.lists.into_iter();
        self.lists
            .extend(lists.map(|(step, list)| (format!("{path}/{step}").into(), list)));
    }

    /// The keys of the items of the step at this path, in their order.
    pub(super) fn keys(&self, path: &str) -> impl Iterator<Item = &str> {
        let items = self.lists.get(path).map(|list| &list.items);
        items.into_iter().flat_map(|items| items.iter()).map(|item| &*item.key)
    }

    /// The step at this path as people name it: `lines[3].push` for the third of the lines.
    pub fn name(&self, path: &str) -> String {
        let mut name = String::with_capacity(path.len());
        let mut told = 0;
        for (end, _) in path.match_indices(']') {
            let Some((step, key)) = path.get(..end).and_then(|before| before.rsplit_once('[')) else {
                continue;
            };
            if let Some(place) = self.lists.get(step).and_then(|list| list.place(key)) {
                name.push_str(path.get(told..=step.len()).unwrap_or_default());
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
    use crate::document::Document;
    use crate::journal::ItemsTaken;

    #[test]
    fn items_of_a_run_that_an_item_starts_are_told_by_their_places() {
        let list = |step: &str, keys: &[&str]| {
            let item = |key: &&str| Item {
                key: format!("~{key}").into(),
                value: Document::null(),
            };
            let mut names = StepNames::default();
            names.note(&Entry::Items(ItemsTaken {
                step: step.into(),
                items: keys.iter().map(item).collect(),
            }));
            names
        };
        let (outer, inner) = ("0f5e0f5e0f5e0f5e", "1a2b1a2b1a2b1a2b");
        let mut names = list("orders", &["a", "b", outer]);
        let (outer, inner_key) = (format!("~{outer}"), format!("~{inner}"));
        let of_run = list("lines", &["a", inner]);
        names.add_run(&format!("orders[{outer}].bill"), of_run);
        assert_eq!(
            names.name(&format!("orders[{outer}].bill/lines[{inner_key}].charge")),
            "orders[3].bill/lines[2].charge"
        );
    }
}

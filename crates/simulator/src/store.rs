//! What the fake providers know: named collections of JSON objects in memory.
//!
//! A collection keeps the order of insertion, because list endpoints page in it, and a bound, because a
//! stream of webhooks may run for hours: the oldest objects leave first. No lock is held longer than one
//! map access.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::Value;

/// Objects that one collection keeps before it forgets the oldest; a webhook stream of a benchmark adds
/// one object per event, and 100,000 objects of 3 KB stay below 300 MB.
pub const COLLECTION_OBJECTS_MAX: usize = 100_000;

/// All collections of all providers; the names are `provider/collection`.
#[derive(Default)]
pub struct Store {
    collections: RwLock<HashMap<String, Arc<Mutex<Collection>>>>,
}

#[derive(Default)]
struct Collection {
    next: u64,
    order: BTreeMap<u64, String>,
    objects: HashMap<String, (u64, Arc<Value>)>,
}

impl Store {
    fn collection(&self, name: &str) -> Arc<Mutex<Collection>> {
        if let Some(found) = self
            .collections
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
        {
            return Arc::clone(found);
        }
        let mut collections = self.collections.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(collections.entry(name.to_owned()).or_default())
    }

    /// The object with this id, if the collection knows it.
    pub fn get(&self, collection: &str, id: &str) -> Option<Arc<Value>> {
        let collection = self.collection(collection);
        let guard = collection.lock().unwrap_or_else(PoisonError::into_inner);
        guard.objects.get(id).map(|(_, object)| Arc::clone(object))
    }

    /// Stores an object; an object with the same id is replaced and keeps its place in the order.
    pub fn put(&self, collection: &str, id: &str, object: Value) -> Arc<Value> {
        let object = Arc::new(object);
        let collection = self.collection(collection);
        let mut guard = collection.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = guard.objects.get_mut(id) {
            slot.1 = Arc::clone(&object);
            return object;
        }
        let place = guard.next;
        guard.next += 1;
        guard.order.insert(place, id.to_owned());
        guard.objects.insert(id.to_owned(), (place, Arc::clone(&object)));
        if guard.objects.len() > COLLECTION_OBJECTS_MAX
            && let Some((_, oldest)) = guard.order.pop_first()
        {
            guard.objects.remove(&oldest);
        }
        object
    }

    /// Changes an object in place and returns the new state; `None` when there is no such object.
    pub fn update(&self, collection: &str, id: &str, change: impl FnOnce(&mut Value)) -> Option<Arc<Value>> {
        let collection = self.collection(collection);
        let mut guard = collection.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, object) = guard.objects.get_mut(id)?;
        change(Arc::make_mut(object));
        Some(Arc::clone(object))
    }

    /// Removes an object; false when there was none.
    pub fn remove(&self, collection: &str, id: &str) -> bool {
        let collection = self.collection(collection);
        let mut guard = collection.lock().unwrap_or_else(PoisonError::into_inner);
        match guard.objects.remove(id) {
            Some((place, _)) => {
                guard.order.remove(&place);
                true
            }
            None => false,
        }
    }

    /// All objects of a collection in the order in which they were created.
    pub fn list(&self, collection: &str) -> Vec<Arc<Value>> {
        let collection = self.collection(collection);
        let guard = collection.lock().unwrap_or_else(PoisonError::into_inner);
        guard
            .order
            .values()
            .filter_map(|id| guard.objects.get(id))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Names and sizes of all collections, sorted by name.
    pub fn sizes(&self) -> BTreeMap<String, usize> {
        let collections = self.collections.read().unwrap_or_else(PoisonError::into_inner);
        collections
            .iter()
            .map(|(name, collection)| {
                let objects = collection.lock().unwrap_or_else(PoisonError::into_inner).objects.len();
                (name.clone(), objects)
            })
            .collect()
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.collections.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keeps_the_order_of_creation_and_forgets_the_oldest() {
        let store = Store::default();
        for n in 0..=COLLECTION_OBJECTS_MAX {
            store.put("crm/deals", &n.to_string(), json!({ "n": n }));
        }
        assert!(store.get("crm/deals", "0").is_none());
        let listed = store.list("crm/deals");
        assert_eq!(listed.len(), COLLECTION_OBJECTS_MAX);
        assert_eq!(listed[0]["n"], 1);

        store.put("crm/deals", "1", json!({ "n": "replaced" }));
        assert_eq!(store.list("crm/deals")[0]["n"], "replaced");
        assert!(store.remove("crm/deals", "1"));
        assert_eq!(store.list("crm/deals")[0]["n"], 2);
    }
}

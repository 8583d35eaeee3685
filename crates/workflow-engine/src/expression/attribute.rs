//! `attribute` of filters that look into the elements of a list: a path like any other, so one that leads nowhere is an
//! error. The library takes it for nothing: a mistyped `map(attribute='cents') | sum` would be an amount of 0.

use std::borrow::Cow;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Error, ErrorKind, State};

use super::order;
use crate::problem::nearest;

/// Names of an element that an error shows.
const SHOWN_NAMES: usize = 8;
/// Tests of the library that are about whether something is there.
const OF_PRESENCE: [&str; 2] = ["defined", "undefined"];
/// Tests of the library that ask for an order.
const OF_ORDER: [&str; 10] = ["<", "<=", ">", ">=", "lt", "le", "gt", "ge", "lessthan", "greaterthan"];

/// What an attribute of an element holds; nothing when its path leads nowhere.
fn lookup(element: &Value, path: &str) -> Option<Value> {
    let mut found = element.clone();
    for name in path.split('.') {
        found = match name.parse::<usize>() {
            Ok(place) => found.get_item_by_index(place),
            Err(_) => found.get_attr(name),
        }
        .ok()?;
    }
    (!found.is_undefined()).then_some(found)
}

fn absent(filter: &str, path: &str, place: usize, element: &Value) -> Error {
    let names: Vec<String> = match element.kind() {
        ValueKind::Map => element
            .try_iter()
            .map(|names| names.map(|name| name.to_string()).collect())
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let has = match names.len() {
        0 => "is no object with it".to_owned(),
        1..=SHOWN_NAMES => format!("has {}", names.join(", ")),
        _ => format!("has {}, …", names.get(..SHOWN_NAMES).unwrap_or_default().join(", ")),
    };
    let first = path.split('.').next().unwrap_or(path);
    let meant = match nearest(first, names.iter().map(String::as_str)) {
        Some(meant) if meant != first => format!(" (did you mean `{meant}`?)"),
        _ => String::new(),
    };
    let cure = match filter {
        "map" => "`default=…` beside it says what to take instead",
        _ => "`selectattr('…', 'defined')` before it leaves out those without",
    };
    Error::new(
        ErrorKind::InvalidOperation,
        format!("`{filter}` finds no `{path}` in element {place}, which {has}{meant}; {cure}"),
    )
}

/// Calls `look` with the attribute of each element, and fails at the first element that has none.
fn each(
    state: &mut State<'_, '_>,
    (filter, list, path): (&str, &Value, &str),
    mut look: impl FnMut(&Value) -> Result<(), Error>,
) -> Result<(), Error> {
    let length = u64::try_from(list.len().unwrap_or(0)).unwrap_or(u64::MAX);
    state.consume_fuel(length)?;
    for (place, element) in list.try_iter()?.enumerate() {
        let found = lookup(&element, path).ok_or_else(|| absent(filter, path, place, &element))?;
        look(&found)?;
    }
    Ok(())
}

/// Whether every element has the attribute that `attribute=` names, or the several of `sort`.
pub(super) fn named(state: &mut State<'_, '_>, filter: &str, list: &Value, named: &Kwargs) -> Result<(), Error> {
    let Some(paths) = named.get::<Option<Value>>("attribute")? else {
        return Ok(());
    };
    // A number is a place in a list: the library fails by itself.
    let paths = paths.as_str().unwrap_or_default();
    for path in paths.split(',').map(str::trim).filter(|path| !path.is_empty()) {
        each(state, (filter, list, path), |_found| Ok(()))?;
    }
    Ok(())
}

/// The library's `sort`.
pub(super) fn sort(state: &mut State<'_, '_>, list: Value, kwargs: Kwargs) -> Result<Value, Error> {
    named(state, "sort", &list, &kwargs)?;
    minijinja::filters::sort(state, list, kwargs)
}

/// The library's `unique`.
pub(super) fn unique(state: &mut State<'_, '_>, list: Value, kwargs: Kwargs) -> Result<Value, Error> {
    named(state, "unique", &list, &kwargs)?;
    minijinja::filters::unique(state, list, kwargs)
}

/// The library's `selectattr`.
pub(super) fn selectattr(
    state: &mut State<'_, '_>,
    list: Value,
    path: Cow<'_, str>,
    test: Option<Cow<'_, str>>,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Vec<Value>, Error> {
    tested(state, ("selectattr", &list, &path), test.as_deref(), &arguments)?;
    minijinja::filters::selectattr(state, list, path, test, arguments)
}

/// The library's `rejectattr`.
pub(super) fn rejectattr(
    state: &mut State<'_, '_>,
    list: Value,
    path: Cow<'_, str>,
    test: Option<Cow<'_, str>>,
    arguments: Rest<ValueOrKwargs>,
) -> Result<Vec<Value>, Error> {
    tested(state, ("rejectattr", &list, &path), test.as_deref(), &arguments)?;
    minijinja::filters::rejectattr(state, list, path, test, arguments)
}

/// Whether every element has the attribute and, where the test asks for an order, has one with what it is held against.
fn tested(
    state: &mut State<'_, '_>,
    asked: (&str, &Value, &str),
    test: Option<&str>,
    arguments: &Rest<ValueOrKwargs>,
) -> Result<(), Error> {
    if test.is_some_and(|test| OF_PRESENCE.contains(&test)) {
        return Ok(());
    }
    let against = test
        .filter(|test| OF_ORDER.contains(test))
        .and_then(|test| Some((test, Value::clone(arguments.first()?))));
    each(state, asked, |found| match &against {
        Some((test, against)) => order::order_of(test, found, against).map(drop),
        None => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::super::vocabulary::environment;
    use minijinja::context;

    const LINES: &str = "[{'cents': 5, 'state': 'new', 'to': {'city': 'Bern'}}, \
        {'cents': 7, 'state': 'paid', 'to': {'city': 'Rom'}, 'note': 'quick'}]";

    fn evaluated(source: &str) -> Result<String, String> {
        let source = source.replace("lines", LINES);
        let expression = environment().compile_expression(&source).unwrap();
        let value = expression.eval(context! {});
        value
            .map(|value| value.to_string())
            .map_err(|error| error.detail().unwrap_or_default().to_owned())
    }

    #[test]
    fn attributes_that_are_there_are_used() {
        let check = |source: &str, wanted: &str| assert_eq!(evaluated(source).as_deref(), Ok(wanted), "{source}");
        check("lines | map(attribute='cents') | sum", "12");
        check("lines | map(attribute='to.city') | join(' ')", "Bern Rom");
        check("lines | map(attribute='note', default='-') | join(' ')", "- quick");
        check("lines | selectattr('note', 'defined') | list | length", "1");
        check("lines | rejectattr('note', 'defined') | list | length", "1");
        check(
            "lines | selectattr('cents', '>', 5) | map(attribute='cents') | first",
            "7",
        );
        check("lines | selectattr('state', '==', 'paid') | list | length", "1");
        check(
            "lines | sort(attribute='cents', reverse=true) | map(attribute='cents') | first",
            "7",
        );
        check(
            "lines | sort(attribute='state,cents') | map(attribute='cents') | last",
            "7",
        );
        check("lines | unique(attribute='to.city') | length", "2");
        check("(lines | min(attribute='cents')).cents", "5");
    }

    #[test]
    fn a_mistyped_attribute_is_an_error_and_no_wrong_amount() {
        let check = |source: &str, wanted: &str| {
            let told = evaluated(source).unwrap_err();
            assert!(told.contains(wanted), "{source}: {told}");
        };
        let meant = "finds no `centts` in element 0, which has cents, state, to (did you mean `cents`?)";
        for source in [
            "lines | map(attribute='centts') | sum",
            "lines | selectattr('centts', '==', 5) | list",
            "lines | rejectattr('centts') | list",
            "lines | sort(attribute='centts')",
            "lines | sort(attribute='state,centts')",
            "lines | unique(attribute='centts')",
            "lines | min(attribute='centts')",
            "lines | max(attribute='centts')",
        ] {
            check(source, meant);
        }
        check("lines | map(attribute='note') | list", "`default=…` beside it");
        check(
            "lines | selectattr('note') | list",
            "`selectattr('…', 'defined')` before it",
        );
        check(
            "['a'] | map(attribute='cents') | list",
            "in element 0, which is no object with it",
        );
        check(
            "lines | selectattr('cents', '>', '3') | list",
            "`>` compares numbers with numbers",
        );
    }
}

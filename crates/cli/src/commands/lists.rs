//! Lists, read page by page until there is enough, and printed as a table or as JSON lines.

use crate::client::Client;
use crate::output;
use anyhow::Context as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Largest page that the server gives.
pub(crate) const PAGE_MAX: u32 = 100;

/// Which list: a field of the query with `first` and `after`, and what else it takes.
pub(crate) struct List<'a> {
    /// The field of the query, e.g. `runs`.
    pub(crate) field: &'a str,
    /// Its argument that selects: name and type, e.g. `filter` and `RunFilter`.
    pub(crate) argument: (&'a str, &'a str),
    /// The value of that argument.
    pub(crate) value: Value,
    /// What to read of each node.
    pub(crate) fields: &'a str,
    /// How many at a time, at most [`PAGE_MAX`]: fewer where the server has much to read for each.
    pub(crate) page: u32,
}

/// Reads at most `limit` nodes, newest first.
pub(crate) async fn read<T: DeserializeOwned>(client: &Client, list: &List<'_>, limit: u32) -> anyhow::Result<Vec<T>> {
    let List {
        field,
        argument: (name, kind),
        value,
        fields,
        page,
    } = list;
    let document = format!(
        "query List($first: Int, $after: String, $value: {kind}) {{ \
         {field}(first: $first, after: $after, {name}: $value) {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"
    );
    let mut found = Vec::new();
    let mut after = Value::Null;
    loop {
        let missing = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let variables = json!({ "first": missing.min(*page), "after": after, "value": value });
        let mut data: Value = client.query(&document, variables).await?;
        let mut found_page = data[*field].take();
        let nodes: Vec<T> = serde_json::from_value(found_page["nodes"].take())
            .with_context(|| format!("the server's list of {field} has an unexpected shape"))?;
        found.extend(nodes);
        let enough = u32::try_from(found.len()).unwrap_or(u32::MAX) >= limit;
        if enough || found_page["pageInfo"]["hasNextPage"] != json!(true) {
            return Ok(found);
        }
        after = found_page["pageInfo"]["endCursor"].take();
    }
}

/// Reads at most `limit` nodes of a list that takes nothing else, in its order.
pub(crate) async fn read_all<T: DeserializeOwned>(
    client: &Client,
    field: &str,
    fields: &str,
    limit: u32,
) -> anyhow::Result<Vec<T>> {
    let document = format!(
        "query List($first: Int, $after: String) {{ {field}(first: $first, after: $after) \
         {{ nodes {{ {fields} }} pageInfo {{ hasNextPage endCursor }} }} }}"
    );
    let mut found = Vec::new();
    let mut after = Value::Null;
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    loop {
        let variables = json!({ "first": limit.min(PAGE_MAX), "after": after });
        let mut data: Value = client.query(&document, variables).await?;
        let mut page = data[field].take();
        let nodes: Vec<T> = serde_json::from_value(page["nodes"].take())
            .with_context(|| format!("the server's list of {field} has an unexpected shape"))?;
        found.extend(nodes);
        if found.len() >= wanted || page["pageInfo"]["hasNextPage"] != json!(true) {
            found.truncate(wanted);
            return Ok(found);
        }
        after = page["pageInfo"]["endCursor"].take();
    }
}

/// Prints each value as one line of JSON.
pub(crate) fn print_json<T: Serialize>(values: &[T]) -> anyhow::Result<()> {
    for value in values {
        output::document(serde_json::to_string(value)?);
    }
    Ok(())
}

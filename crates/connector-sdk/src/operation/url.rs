//! Where a request goes. An argument fills one path segment or one query value, and cannot become more.

use std::borrow::Cow;

use serde_json::{Map, Value};
use url::Url;

use super::build::{expression_error, rest};
use super::{BuildError, CallContext, Operation, Query, Target};
use crate::encode::{self, Arrays};
use crate::expression::Scope;
use crate::fields::kind_of;
use crate::page::Place;
use crate::pointer;
use crate::template::{Piece, Template, scalar_text};

pub(super) fn url(operation: &Operation, ctx: &CallContext<'_>, scope: &Scope<'_>) -> Result<String, BuildError> {
    if let (Some(paging), Some(page)) = (&operation.paging, ctx.page)
        && paging.into().is_none()
    {
        // A whole URL, checked against the origin when the answer gave it.
        return Ok(page.token.clone());
    }
    let mut url = match &operation.target {
        Target::Path(pieces) => {
            let mut url = operation.common.base_url_of(operation.host, ctx.config)?.into_owned();
            let start = url.len();
            for piece in pieces {
                push_path_piece(&mut url, piece, scope)?;
            }
            refuse_dot_segments(url.get(start..).unwrap_or_default())?;
            url
        }
        Target::Given(templates) => given_url(operation, ctx, templates, scope)?,
    };
    let query = query(operation, ctx, scope)?;
    if !query.is_empty() {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&query);
    }
    Ok(url)
}

fn push_path_piece(url: &mut String, piece: &Piece, scope: &Scope<'_>) -> Result<(), BuildError> {
    match piece {
        Piece::Literal(literal) => url.push_str(literal),
        Piece::Expression { expression, .. } => {
            let place = expression
                .roots()
                .first()
                .map_or_else(String::new, |root| pointer::join("", root));
            let value = expression
                .evaluate(scope)
                .map_err(|error| expression_error(error, &place))?;
            let text = scalar_text(&value)
                .map_err(|error| BuildError::new(place.clone(), format!("in the path, {}", error.message)))?;
            if text.is_empty() {
                // An empty segment would address the collection instead of one object.
                return Err(BuildError::new(place, "in the path, the text is empty"));
            }
            encode::percent(url, &text);
        }
    }
    Ok(())
}

fn refuse_dot_segments(path: &str) -> Result<(), BuildError> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let is_dots = |segment: &str| {
        if !segment.starts_with(['.', '%']) {
            return false;
        }
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    };
    if path.split(['/', '\\']).any(is_dots) {
        return Err(BuildError::new("", "the path would contain `.` or `..`"));
    }
    Ok(())
}

fn given_url(
    operation: &Operation,
    ctx: &CallContext<'_>,
    templates: &[Template],
    scope: &Scope<'_>,
) -> Result<String, BuildError> {
    for template in templates {
        let Some(text) = template
            .render_to_text(scope)
            .map_err(|error| expression_error(error, ""))?
        else {
            continue;
        };
        if text.starts_with("http://") || text.starts_with("https://") {
            let url = Url::parse(&text).map_err(|error| BuildError::new("", format!("not a valid URL: {error}")))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(BuildError::new("", "a URL must not contain credentials"));
            }
            if !operation.common.allows(ctx.config, &url) {
                return Err(BuildError::new("", "the URL is not on a host of this connector"));
            }
            refuse_dot_segments(url.path())?;
            return Ok(url.as_str().split('#').next().unwrap_or_default().to_owned());
        }
        let mut url = operation.common.base_url_of(operation.host, ctx.config)?.into_owned();
        refuse_dot_segments(&text)?;
        if !text.starts_with('/') && !text.is_empty() && !text.starts_with('?') {
            url.push('/');
        }
        url.push_str(&text);
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"#\\\"<>^`{|}".contains(&byte));
        return match is_plain {
            true => Ok(url),
            false => Url::parse(&url)
                .map(|url| url.to_string())
                .map_err(|error| BuildError::new("", format!("not a valid path: {error}"))),
        };
    }
    Err(BuildError::new("", "neither a URL nor a path is given"))
}

fn query(operation: &Operation, ctx: &CallContext<'_>, scope: &Scope<'_>) -> Result<String, BuildError> {
    let arrays = operation.arrays.unwrap_or(Arrays::Repeat);
    let mut query = String::new();
    let mut own: Option<Cow<'_, Value>> = match &operation.query {
        Query::None => None,
        Query::Template(template) => template
            .render(scope)
            .map_err(|error| expression_error(error, "/query"))?,
        Query::Rest => Some(Cow::Owned(Value::Object(rest(operation, ctx.args)))),
    };
    if own.as_ref().is_some_and(|own| own.is_null()) {
        own = None;
    }
    if let Some(own) = &own
        && !own.is_object()
    {
        return Err(BuildError::new(
            "/query",
            format!("the query must be a mapping, found {}", kind_of(own)),
        ));
    }
    let paging = paging_query(operation, ctx);
    match (own, paging.is_empty()) {
        (Some(Cow::Borrowed(Value::Object(map))), true) => encode::pairs(&mut query, map, arrays),
        (own, _) => {
            let mut map = match own.map(Cow::into_owned) {
                Some(Value::Object(map)) => map,
                Some(_) | None => Map::new(),
            };
            map.extend(paging);
            encode::pairs(&mut query, &map, arrays);
        }
    }
    Ok(query)
}

fn paging_query(operation: &Operation, ctx: &CallContext<'_>) -> Map<String, Value> {
    let mut map = Map::new();
    let Some(paging) = &operation.paging else {
        return map;
    };
    if let Some(size) = paging.size()
        && let Place::Query(name) = &size.into
    {
        map.insert(name.clone(), size.value.into());
    }
    if let (Some(token), Some(Place::Query(name))) = (paging.token(ctx.page), paging.into()) {
        map.insert(name.clone(), token);
    }
    map
}

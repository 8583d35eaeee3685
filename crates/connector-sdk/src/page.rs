//! Paging: where the next page of a list is, and when there is none.
//!
//! Every kind ends: an empty page, a missing cursor, a false `more`, a reached `total`, or the page cap. A cursor that
//! repeats is a failure, never an endless loop; cycles are found with the memory of two cursors (R. P. Brent, "An
//! improved Monte Carlo factorization algorithm", BIT 20, 1980).

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::answer::{Source, read_pointer};
use crate::fields::Fields;
use crate::http_message::HttpResponse;
use crate::pointer::Pointer;
use crate::problem::Problems;

/// Most pages of one list when the manifest does not say.
///
/// Limit: pages of a list, when `max_pages` says nothing | the call fails, `page_limit` | `a_list_without_end_stops_at_its_pages` | `weir_calls_total`
const DEFAULT_MAX_PAGES: u32 = 1_000;

/// The largest `max_pages`.
///
/// Limit: `max_pages` of an operation | the manifest is refused, `out_of_bounds` | `paging_words_are_checked`
const MAX_PAGES: u32 = 10_000;

/// One page to fetch, as given by the answer before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// How many pages came before it.
    pub number: u32,
    /// How many items came before it.
    pub items_before: u64,
    /// What the request carries: a cursor, an id, a page number, an offset, or a whole URL.
    pub token: String,
    /// A token of an earlier page: one that comes again shows that the list goes in a circle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<String>,
}

/// How a list is paged.
#[derive(Debug)]
pub(crate) struct Paging {
    pub(crate) kind: Kind,
    /// Boolean in the answer: are there more?
    more: Option<Source>,
    /// Number of all items in the answer.
    total: Option<Source>,
    /// Number of all pages in the answer.
    pages: Option<Source>,
    max_pages: u32,
}

#[derive(Debug)]
pub(crate) enum Kind {
    Cursor {
        next: Source,
        into: Place,
    },
    SinceId {
        from: Pointer,
        into: Place,
    },
    PageNumber {
        into: Place,
        start: u64,
        size: Option<Size>,
        /// Whether the first request says its number too.
        first: bool,
    },
    Offset {
        into: Place,
        size: Option<Size>,
        /// Whether the first request says its offset too.
        first: bool,
    },
    Link {
        rel: String,
    },
    NextUrl {
        from: Source,
    },
}

/// The page size that a request states.
#[derive(Debug)]
pub(crate) struct Size {
    pub(crate) into: Place,
    pub(crate) value: u64,
}

/// Where a request carries a paging value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Query(String),
    Header(String),
    Body(Pointer),
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once('.')?;
        match kind {
            _ if name.is_empty() => None,
            "query" => Some(Self::Query(name.to_owned())),
            "header" => Some(Self::Header(name.to_owned())),
            "body" => Pointer::parse(&format!("/{}", name.replace('.', "/"))).map(Self::Body),
            _ => None,
        }
    }
}

/// What follows a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Following {
    Page(Page),
    End,
    /// The list cannot be read on: code and message.
    Broken(&'static str, String),
}

impl Paging {
    pub(crate) fn read(value: &Value, place: &str, problems: &mut Problems) -> Option<Self> {
        let fields = Fields::open(
            value,
            place,
            &["cursor", "since_id", "page", "offset", "link", "next_url"],
            problems,
        )?;
        let (kind, value) = fields.single("`page`", problems)?;
        let place = fields.at(kind);
        let known: &[&str] = match kind {
            "cursor" => &["next", "into", "more", "total", "max_pages"],
            "since_id" => &["from", "into", "more", "total", "max_pages"],
            "page" => &["into", "start", "size", "first", "more", "total", "pages", "max_pages"],
            "offset" => &["into", "size", "first", "more", "total", "max_pages"],
            "link" => &["rel", "more", "total", "max_pages"],
            _ => &["from", "more", "total", "max_pages"],
        };
        let fields = Fields::open(value, &place, known, problems)?;
        let stop = |key: &str, problems: &mut Problems| {
            fields
                .get(key)
                .is_some()
                .then(|| Source::read(&fields, key, problems))
                .flatten()
        };
        let (more, total, pages) = (stop("more", problems), stop("total", problems), stop("pages", problems));
        let max_pages = read_max_pages(&fields, problems);
        let first = fields.flag("first", problems).unwrap_or(false);
        let kind = match kind {
            "cursor" => Kind::Cursor {
                next: Source::read(&fields, "next", problems)?,
                into: read_place(&fields, problems)?,
            },
            "since_id" => Kind::SinceId {
                from: read_pointer(&fields, "from", problems)?,
                into: read_place(&fields, problems)?,
            },
            "page" => Kind::PageNumber {
                into: read_place(&fields, problems)?,
                start: fields.number("start", problems).unwrap_or(1),
                size: read_size(&fields, problems),
                first,
            },
            "offset" => Kind::Offset {
                into: read_place(&fields, problems)?,
                size: read_size(&fields, problems),
                first,
            },
            "link" => Kind::Link {
                rel: fields.text("rel", problems).unwrap_or("next").to_owned(),
            },
            _ => Kind::NextUrl {
                from: Source::read(&fields, "from", problems)?,
            },
        };
        Some(Self {
            kind,
            more,
            total,
            pages,
            max_pages,
        })
    }

    /// Whether the kind needs to see the items of a page.
    pub(crate) fn needs_items(&self) -> bool {
        matches!(
            self.kind,
            Kind::SinceId { .. } | Kind::PageNumber { .. } | Kind::Offset { .. }
        )
    }

    pub(crate) fn size(&self) -> Option<&Size> {
        match &self.kind {
            Kind::PageNumber { size, .. } | Kind::Offset { size, .. } => size.as_ref(),
            Kind::Cursor { .. } | Kind::SinceId { .. } | Kind::Link { .. } | Kind::NextUrl { .. } => None,
        }
    }

    /// Where the token of a following page goes; `None` when it is the whole URL.
    pub(crate) fn into(&self) -> Option<&Place> {
        match &self.kind {
            Kind::Cursor { into, .. }
            | Kind::SinceId { into, .. }
            | Kind::PageNumber { into, .. }
            | Kind::Offset { into, .. } => Some(into),
            Kind::Link { .. } | Kind::NextUrl { .. } => None,
        }
    }

    /// What the request of `page` (`None`: the first) carries in [`Paging::into`]. Numbers are numbers where the place
    /// knows types.
    pub(crate) fn token(&self, page: Option<&Page>) -> Option<Value> {
        let counts = match &self.kind {
            Kind::PageNumber { start, first, .. } => Some((*start, *first)),
            Kind::Offset { first, .. } => Some((0, *first)),
            Kind::Cursor { .. } | Kind::SinceId { .. } | Kind::Link { .. } | Kind::NextUrl { .. } => None,
        };
        match (page, counts) {
            (Some(page), Some(_)) => Some(
                page.token
                    .parse::<u64>()
                    .map_or_else(|_| Value::from(page.token.as_str()), Value::from),
            ),
            (Some(page), None) => Some(Value::from(page.token.as_str())),
            (None, Some((start, true))) => Some(Value::from(start)),
            (None, Some((_, false)) | None) => None,
        }
    }

    /// Whether requests carry a page or its size in their body.
    pub(crate) fn writes_body(&self) -> bool {
        let places = self.into().into_iter().chain(self.size().map(|size| &size.into));
        places.into_iter().any(|place| matches!(place, Place::Body(_)))
    }

    /// Names of query parameters that paging writes.
    pub(crate) fn query_names(&self) -> impl Iterator<Item = &str> {
        self.into()
            .into_iter()
            .chain(self.size().map(|size| &size.into))
            .filter_map(|place| match place {
                Place::Query(name) => Some(name.as_str()),
                Place::Header(_) | Place::Body(_) => None,
            })
    }

    /// What follows the page `current` (`None`: the first), given its answer and the URL it was asked from.
    pub(crate) fn following(
        &self,
        current: Option<&Page>,
        body: &Value,
        items: &[Value],
        response: &HttpResponse,
        asked: &str,
    ) -> Following {
        let items_before = current.map_or(0, |page| page.items_before) + items.len() as u64;
        let number = current.map_or(0, |page| page.number) + 1;
        if self.says_end(body, response, (items_before, number)) || (self.needs_items() && items.is_empty()) {
            return Following::End;
        }
        // A provider that says how much there is may leave single items out of a page.
        let is_told = self.more.is_some() || self.total.is_some() || self.pages.is_some();
        let short = !is_told && self.size().is_some_and(|size| (items.len() as u64) < size.value);
        let token = match &self.kind {
            Kind::Cursor { next, .. } => next.lookup(response, || Some(body)).as_deref().and_then(token_text),
            Kind::SinceId { from, .. } => match items.last().and_then(|last| from.lookup(last)).and_then(token_text) {
                Some(token) => Some(token),
                None => {
                    return Following::Broken("paging_broken", "the last item has no id to go on from".to_owned());
                }
            },
            Kind::PageNumber { .. } | Kind::Offset { .. } if short => None,
            Kind::PageNumber { start, .. } => Some((start + u64::from(number)).to_string()),
            Kind::Offset { .. } => Some(items_before.to_string()),
            Kind::Link { rel } => match next_link(response, rel) {
                Some(link) => match same_origin(asked, &link) {
                    Ok(url) => Some(url),
                    Err(message) => return Following::Broken("paging_refused", message),
                },
                None => None,
            },
            Kind::NextUrl { from } => match from.lookup(response, || Some(body)).as_deref().and_then(token_text) {
                Some(link) => match same_origin(asked, &link) {
                    Ok(url) => Some(url),
                    Err(message) => return Following::Broken("paging_refused", message),
                },
                None => None,
            },
        };
        match token {
            None => Following::End,
            Some(token)
                if current.is_some_and(|page| page.has_seen(&token)) || (self.into().is_none() && token == asked) =>
            {
                Following::Broken("paging_loop", "the list gave the same cursor twice".to_owned())
            }
            Some(_) if number >= self.max_pages => {
                Following::Broken("page_limit", format!("the list has more than {} pages", self.max_pages))
            }
            Some(token) => Following::Page(Page {
                number,
                items_before,
                token,
                mark: current.and_then(|page| page.mark_behind(number)),
            }),
        }
    }

    /// Whether the answer itself says that nothing follows.
    fn says_end(&self, body: &Value, response: &HttpResponse, (items, pages): (u64, u32)) -> bool {
        let no_more = self.more.as_ref().is_some_and(|more| {
            let said = more.lookup(response, || Some(body));
            // In a header, and with some providers in the body, the word `false` is text.
            !said.is_some_and(|said| crate::expression::truthy(&said) && said.as_str() != Some("false"))
        });
        let reached = |source: &Option<Source>, count: u64| {
            let all = source
                .as_ref()
                .and_then(|source| source.lookup(response, || Some(body)));
            all.and_then(|all| whole_number(&all)).is_some_and(|all| count >= all)
        };
        no_more || reached(&self.total, items) || reached(&self.pages, u64::from(pages))
    }
}

impl Page {
    fn has_seen(&self, token: &str) -> bool {
        self.token == token || self.mark.as_deref() == Some(token)
    }

    /// The mark of the page with that number: it moves to the latest token at each power of two, so that a circle of any
    /// length is walked through twice at most before it is noticed.
    fn mark_behind(&self, number: u32) -> Option<String> {
        match number.is_power_of_two() {
            true => Some(self.token.clone()),
            false => self.mark.clone(),
        }
    }
}

/// A count, which some providers and all headers state as text.
fn whole_number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A cursor as text; null, empty text and `false` mean that there is none.
fn token_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The absolute form of `link`, which must stay on the origin that was asked: credentials travel with it.
fn same_origin(asked: &str, link: &str) -> Result<String, String> {
    let base = Url::parse(asked).map_err(|error| format!("the request had no valid URL: {error}"))?;
    let next = base
        .join(link)
        .map_err(|error| format!("the next page has no valid URL: {error}"))?;
    if next.origin() == base.origin() && next.username().is_empty() && next.password().is_none() {
        Ok(next.to_string())
    } else {
        Err(format!(
            "the next page is on another host ({})",
            next.host_str().unwrap_or("none")
        ))
    }
}

/// The target of a `Link` header entry (RFC 8288) with that relation.
fn next_link(response: &HttpResponse, rel: &str) -> Option<String> {
    let headers = response
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("link"));
    for (_, header) in headers {
        let mut rest = header.as_str();
        while let Some((_, after)) = rest.split_once('<') {
            let (target, after) = after.split_once('>')?;
            let (parameters, tail) = after
                .split_once(",<")
                .or_else(|| after.split_once(", <"))
                .map_or((after, None), |(parameters, tail)| (parameters, Some(tail)));
            let matches = parameters.split(';').any(|parameter| {
                parameter.trim().split_once('=').is_some_and(|(name, value)| {
                    name.trim().eq_ignore_ascii_case("rel")
                        && value
                            .trim()
                            .trim_matches('"')
                            .split_ascii_whitespace()
                            .any(|known| known.eq_ignore_ascii_case(rel))
                })
            });
            if matches {
                return Some(target.to_owned());
            }
            let Some(tail) = tail else { break };
            // The separator took the `<` with it.
            rest = header.get(header.len() - tail.len() - 1..).unwrap_or_default();
        }
    }
    None
}

fn read_max_pages(fields: &Fields<'_>, problems: &mut Problems) -> u32 {
    let Some(stated) = fields.number("max_pages", problems) else {
        return DEFAULT_MAX_PAGES;
    };
    match u32::try_from(stated)
        .ok()
        .filter(|pages| (1..=MAX_PAGES).contains(pages))
    {
        Some(pages) => pages,
        None => {
            let message = format!("`max_pages` is a number from 1 to {MAX_PAGES}");
            problems.add(&fields.at("max_pages"), "out_of_bounds", message);
            DEFAULT_MAX_PAGES
        }
    }
}

fn read_place(fields: &Fields<'_>, problems: &mut Problems) -> Option<Place> {
    let text = fields.required_text("into", problems)?;
    let place = Place::parse(text);
    if place.is_none() {
        problems.add_with_suggestion(
            &fields.at("into"),
            "bad_value",
            format!("`{text}` says no place"),
            "query.NAME, header.NAME or body.NAME",
        );
    }
    place
}

fn read_size(fields: &Fields<'_>, problems: &mut Problems) -> Option<Size> {
    let size = Fields::open(fields.get("size")?, &fields.at("size"), &["into", "value"], problems)?;
    let into = read_place(&size, problems)?;
    size.required("value", problems)?;
    let value = size.number("value", problems)?;
    Some(Size { into, value })
}

//! `GraphiQL` under `/graphiql`: a page, its script and the vendored builds, all from this process.
//!
//! No cookie and no inline script: the page asks for a token and keeps it in the tab. See `assets/NOTICE` for the
//! licences of the vendored files.

use crate::problem::{Code, Problem};
use actix_web::HttpResponse;
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

/// What the page may load and call: only this server. Inline styles are `GraphiQL`'s own.
pub(crate) const CONTENT_SECURITY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     connect-src 'self'; img-src 'self' data:; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct Asset {
    name: &'static str,
    content_type: &'static str,
    bytes: &'static [u8],
    /// Stored gzip'd, and sent so: every browser that runs `GraphiQL` takes it.
    gzip: bool,
}

const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

static ASSETS: [Asset; 7] = [
    Asset {
        name: "",
        content_type: "text/html; charset=utf-8",
        bytes: include_bytes!("../assets/graphiql/index.html"),
        gzip: false,
    },
    Asset {
        name: "app.js",
        content_type: JAVASCRIPT,
        bytes: include_bytes!("../assets/graphiql/app.js"),
        gzip: false,
    },
    Asset {
        name: "app.css",
        content_type: STYLE,
        bytes: include_bytes!("../assets/graphiql/app.css"),
        gzip: false,
    },
    Asset {
        name: "react.js",
        content_type: JAVASCRIPT,
        bytes: include_bytes!("../assets/graphiql/react.js.gz"),
        gzip: true,
    },
    Asset {
        name: "react-dom.js",
        content_type: JAVASCRIPT,
        bytes: include_bytes!("../assets/graphiql/react-dom.js.gz"),
        gzip: true,
    },
    Asset {
        name: "graphiql.js",
        content_type: JAVASCRIPT,
        bytes: include_bytes!("../assets/graphiql/graphiql.js.gz"),
        gzip: true,
    },
    Asset {
        name: "graphiql.css",
        content_type: STYLE,
        bytes: include_bytes!("../assets/graphiql/graphiql.css.gz"),
        gzip: true,
    },
];

/// Answers for the page (empty name) or one of its files.
pub(crate) fn serve(name: &str) -> HttpResponse {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name) else {
        return Problem::new(Code::NotFound, "GraphiQL has no such file").to_response();
    };
    let mut answer = HttpResponse::Ok();
    answer
        .content_type(asset.content_type)
        .insert_header((CONTENT_SECURITY_POLICY, CONTENT_SECURITY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((X_FRAME_OPTIONS, "DENY"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        // Names do not change with the version, so the browser asks again after an hour.
        .insert_header((CACHE_CONTROL, if asset.gzip { "public, max-age=3600" } else { "no-cache" }));
    if asset.gzip {
        answer.insert_header((CONTENT_ENCODING, "gzip"));
    }
    answer.body(asset.bytes)
}

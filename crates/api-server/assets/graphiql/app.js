// Asks for a token, then mounts GraphiQL. The token lives in sessionStorage: one tab, gone when it closes.
"use strict";
(() => {
  const KEY = "weir-token";
  const EXAMPLE = `# What happened lately, and what became of it.
# Ctrl-Enter runs the query; the book icon on the left explains every field.
query Recent {
  viewer { name permissions }
  runs(first: 5) {
    nodes {
      id
      status
      startedAt
      workflow { name }
      event { id type }
      steps {
        path
        kind
        status
        attempts { number error exchanges { method url status durationMs } }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}
`;
  const $ = (id) => document.getElementById(id);
  let root;

  async function send(body, token, headers) {
    const answer = await fetch("/graphql", {
      method: "POST",
      headers: {
        "content-type": "application/json",
        accept: "application/graphql-response+json, application/json",
        authorization: `Bearer ${token}`,
        ...headers,
      },
      body: JSON.stringify(body),
    });
    return { status: answer.status, json: await answer.json() };
  }

  function signIn(message) {
    sessionStorage.removeItem(KEY);
    if (root) {
      root.unmount();
      root = undefined;
    }
    $("graphiql").hidden = true;
    $("sign-out").hidden = true;
    $("sign-in").hidden = false;
    $("message").textContent = message || "";
    $("token").value = "";
    $("token").focus();
  }

  function open(token) {
    $("sign-in").hidden = true;
    $("graphiql").hidden = false;
    $("sign-out").hidden = false;
    const fetcher = async (parameters, options) => {
      const { status, json } = await send(parameters, token, options && options.headers);
      if (status === 401) signIn("The token is no longer accepted.");
      return json;
    };
    root = ReactDOM.createRoot($("graphiql"));
    root.render(React.createElement(GraphiQL, { fetcher, defaultQuery: EXAMPLE, shouldPersistHeaders: false }));
  }

  $("sign-in").addEventListener("submit", async (event) => {
    event.preventDefault();
    const token = $("token").value.trim();
    $("message").textContent = "";
    try {
      const { status } = await send({ query: "{ viewer { name } }" }, token);
      if (status === 200) {
        sessionStorage.setItem(KEY, token);
        open(token);
      } else {
        $("message").textContent = status === 401 ? "This token is not accepted." : `The server answered ${status}.`;
      }
    } catch {
      $("message").textContent = "The server cannot be reached.";
    }
  });
  $("sign-out").addEventListener("click", () => signIn());

  const kept = sessionStorage.getItem(KEY);
  if (kept) open(kept);
  else signIn();
})();

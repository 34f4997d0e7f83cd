//! Which route stands for a request, and what the rules are told of it.
//!
//! A value of another type, or under a name that only looks like one that rules look at, is refused: the upstream might read
//! it where the rules saw nothing. No route: there is no such request.

use std::collections::BTreeSet;

use avouch_credential::json::folded;
use avouch_rules::limits::{PARAM_SET_MAX, PARAM_TEXT_MAX};
use avouch_rules::{HttpMethod, Param, ParamKind, Params};

use super::Route;
use super::target::{Pair, Target};
use crate::gate::limits::QUOTE_MAX;
use crate::gate::quote;

/// A parameter by which some frameworks take a request for one of another method.
const METHOD_OVERRIDE: &str = "_method";

/// Why a request can't be decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Not {
    /// No route stands for it.
    Mapped,
    /// What is wrong with it.
    Fitting(String),
}

/// The route, and what its parameters are.
///
/// # Errors
/// [`Not`].
pub fn asked<'a>(
    routes: &'a [Route],
    method: HttpMethod,
    target: &Target,
) -> Result<(&'a Route, Params), Not> {
    let found = routes.iter().filter(|route| route.method == method);
    let found = found.filter_map(|route| Some((route, route.path.values(&target.path)?))).next();
    let (route, values) = found.ok_or(Not::Mapped)?;
    let mut params = Params::new();
    for (name, value) in values {
        if let Some(kind) = route.params.get(name) {
            params.insert(name.to_owned(), read(name, &value, *kind)?);
        }
    }
    for Pair { name, value } in &target.query {
        let value = value.as_deref().unwrap_or_default();
        match route.query.get(name).and_then(|name| Some((name, *route.params.get(name)?))) {
            Some((name, ParamKind::Set)) => add(&mut params, name, value)?,
            Some((name, kind)) => {
                let twice = params.insert(name.clone(), read(name, value, kind)?).is_some();
                if twice {
                    return Err(Not::Fitting(format!("the query parameter \"{name}\" stands twice")));
                }
            }
            None => unlisted(route, name)?,
        }
    }
    Ok((route, params))
}

/// A parameter that rules do not look at.
fn unlisted(route: &Route, name: &str) -> Result<(), Not> {
    let shown = quote(name, QUOTE_MAX);
    // `state[]` is `state` to those that take brackets for lists.
    let alike = folded(name.split('[').next().unwrap_or_default().trim());
    if let Some(listed) = route.query.iter().find(|listed| folded(listed) == alike) {
        return Err(Not::Fitting(format!("the query parameter \"{shown}\" is to be spelled \"{listed}\"")));
    }
    if !route.other_query || alike == METHOD_OVERRIDE {
        let listed: Vec<_> = route.query.iter().map(String::as_str).collect();
        let listed = if listed.is_empty() { "none".to_owned() } else { listed.join(", ") };
        let text = format!(
            "the query parameter \"{shown}\" is none that this route lets through (it lets: {listed})"
        );
        return Err(Not::Fitting(text));
    }
    Ok(())
}

fn add(params: &mut Params, name: &str, value: &str) -> Result<(), Not> {
    let Param::String(text) = read(name, value, ParamKind::String)? else { return Ok(()) };
    let set = params.entry(name.to_owned()).or_insert_with(|| Param::Set(BTreeSet::new()));
    if let Param::Set(set) = set {
        set.insert(text);
        if set.len() > PARAM_SET_MAX {
            return Err(Not::Fitting(format!("\"{name}\" has more than {PARAM_SET_MAX} values")));
        }
    }
    Ok(())
}

fn read(name: &str, value: &str, kind: ParamKind) -> Result<Param, Not> {
    let read = match kind {
        // In its one form only: a server may read +7 or 07 as something else.
        ParamKind::Long => value.parse().ok().filter(|n: &i64| n.to_string() == value).map(Param::Long),
        ParamKind::String | ParamKind::Set => {
            (value.len() <= PARAM_TEXT_MAX).then(|| Param::String(value.to_owned()))
        }
    };
    read.ok_or_else(|| {
        let what = match kind {
            ParamKind::Long => "whole number of 64 bits".to_owned(),
            ParamKind::String | ParamKind::Set => format!("text of at most {PARAM_TEXT_MAX} bytes"),
        };
        Not::Fitting(format!("\"{name}\" is no {what}"))
    })
}

#[cfg(test)]
mod tests {
    use avouch_rules::Template;

    use super::super::target;
    use super::*;

    fn route(method: HttpMethod, path: &str) -> Route {
        let kinds = [("id", ParamKind::Long), ("state", ParamKind::String), ("tag", ParamKind::Set)];
        Route {
            method,
            path: Template::parse(path).unwrap(),
            resource: "api/tickets".to_owned(),
            action: "http.read".to_owned(),
            params: kinds.map(|(name, kind)| (name.to_owned(), kind)).into(),
            query: ["state".to_owned(), "tag".to_owned()].into(),
            other_query: false,
            rows_at: String::new(),
        }
    }

    fn params(raw: &str, other_query: bool) -> Result<Params, Not> {
        let routes = [Route { other_query, ..route(HttpMethod::Get, "/tickets/{id}") }];
        asked(&routes, HttpMethod::Get, &target::read(raw).unwrap()).map(|(_, params)| params)
    }

    #[test]
    fn a_request_has_the_values_of_its_path_and_of_the_query() {
        let found = params("/tickets/7?tag=b&state=open&tag=a", false).unwrap();
        let tags = Param::Set(["a".to_owned(), "b".to_owned()].into());
        assert_eq!(found["id"], Param::Long(7));
        assert_eq!((&found["state"], &found["tag"]), (&Param::String("open".to_owned()), &tags));
        assert_eq!(params("/tickets/7?state", false).unwrap()["state"], Param::String(String::new()));
        assert!(!params("/tickets/7?page=2", true).unwrap().contains_key("page"));
    }

    #[test]
    fn what_no_route_stands_for_is_not_mapped() {
        assert_eq!(params("/tickets", true), Err(Not::Mapped));
        assert_eq!(params("/tickets/7/", true), Err(Not::Mapped));
        let routes = [route(HttpMethod::Get, "/tickets/{id}")];
        let target = target::read("/tickets/7").unwrap();
        assert_eq!(asked(&routes, HttpMethod::Delete, &target).unwrap_err(), Not::Mapped);
    }

    #[test]
    fn what_rules_would_not_see_as_the_upstream_does_is_refused() {
        for (raw, other, told) in [
            ("/tickets/x", true, "\"id\" is no whole number"),
            ("/tickets/07", true, "\"id\" is no whole number"),
            ("/tickets/+7", true, "\"id\" is no whole number"),
            ("/tickets/7?state=a&state=b", true, "\"state\" stands twice"),
            ("/tickets/7?State=a", true, "is to be spelled \"state\""),
            ("/tickets/7?state[]=a", true, "is to be spelled \"state\""),
            (
                "/tickets/7?page=2",
                false,
                "\"page\" is none that this route lets through (it lets: state, tag)",
            ),
            ("/tickets/7?_method=DELETE", true, "\"_method\" is none"),
        ] {
            let Err(Not::Fitting(text)) = params(raw, other) else { panic!("{raw}") };
            assert!(text.contains(told), "{raw}: {text}");
        }
    }
}

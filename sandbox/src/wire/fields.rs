//! The `fields` parameter: which keys of an object are in a reply.

use serde_json::{Map, Value};

use crate::wire::error::{self, GraphError};

/// Splits `id,name,business{id,name}` at the outer commas and keeps what is in braces with its field.
fn split(fields: &str) -> Vec<(String, Option<String>)> {
    let mut depth = 0_u32;
    let mut parts = vec![String::new()];
    for letter in fields.chars() {
        match letter {
            '{' | '(' => depth += 1,
            '}' | ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    let named = |part: &String| {
        let part = part.trim();
        match part.split_once('{') {
            Some((name, inner)) => (name.to_owned(), Some(inner.trim_end_matches('}').to_owned())),
            None => (part.split('.').next().unwrap_or_default().to_owned(), None),
        }
    };
    parts.iter().map(named).filter(|(name, _)| !name.is_empty()).collect()
}

/// The first of `names` that a request asks for.
pub(crate) fn asked<'a>(fields: Option<&str>, names: &[&'a str]) -> Option<&'a str> {
    let fields = split(fields?);
    names.iter().copied().find(|name| fields.iter().any(|(field, _)| field == name))
}

/// Keeps the requested keys of `object` (those of `default` if none are requested). A key that is `null`
/// exists without a value and is left out. `id` is always included.
pub(crate) fn select(
    object: &Value,
    fields: Option<&str>,
    default: &str,
    node: &str,
) -> Result<Value, GraphError> {
    let Value::Object(object) = object else { return Ok(object.clone()) };
    let mut shown = Map::new();
    for (name, inner) in split(fields.unwrap_or(default)) {
        let value = object.get(&name).ok_or_else(|| {
            error::parameter(format!(
                "(#100) Tried accessing nonexisting field ({name}) on node type ({node})"
            ))
        })?;
        if value.is_null() {
            continue;
        }
        let value = match &inner {
            Some(inner) => select(value, Some(inner), inner, &name)?,
            None => value.clone(),
        };
        shown.insert(name, value);
    }
    if let Some(id) = object.get("id") {
        shown.entry("id").or_insert_with(|| id.clone());
    }
    Ok(Value::Object(shown))
}

//! What a function says about HTTP: the headers that it sees of a request, and the type of its output.

use crate::error::{At, quoted};
use crate::fields::Section;
use crate::limit;
use crate::manifest::{Declared, DeclaredPlacement, Reader};
use crate::workflow::Header;

/// Headers that no function gets, and why.
const REFUSED: &[(&str, &str)] = &[
    (
        "proxy",
        "as HTTP_PROXY it would tell libraries to send what they send through a client's proxy",
    ),
    ("content-length", "the function gets the length with the payload"),
    ("traceparent", "every function sees its own span as TRACEPARENT"),
];

impl Reader<'_, '_> {
    /// The headers that a function sees. Its placement and its own variables are known.
    pub(crate) fn headers(&mut self, section: &Section<'_>, declared: &Declared) -> Vec<Header> {
        let texts = section.texts(self.report, "headers");
        let here = matches!(declared.placement, DeclaredPlacement::Local);
        if let Some(first) = texts.first().filter(|_| !here) {
            self.report.add(first.at, || {
                format!(
                    "{} has `headers` but runs elsewhere, and headers stay in the process that takes the request; remove one of `headers` and `placement`",
                    section.title
                )
            });
        }
        if texts.len() > limit::HEADERS {
            let (count, most) = (texts.len(), limit::HEADERS);
            self.report.add(texts[most].at, || {
                format!(
                    "{} has {count} `headers`, but {most} is the limit; remove some",
                    section.title
                )
            });
        }
        let mut headers: Vec<Header> = Vec::new();
        for text in texts {
            let Some(header) = self.header(section, &text) else { continue };
            let variable = header.variable.as_str();
            if headers.contains(&header) {
                self.report.add(text.at, || {
                    format!(
                        "{} names {} twice in `headers`; remove one",
                        section.title,
                        quoted(&text.value)
                    )
                });
            } else if declared.wasi.env.iter().any(|(name, _)| name == variable) {
                self.report.add(text.at, || {
                    format!(
                        "{} has the header {} and, in its `env`, the variable {variable}, which it would be; remove one",
                        section.title,
                        quoted(&text.value)
                    )
                });
            }
            headers.push(header);
        }
        headers
    }

    fn header(&mut self, section: &Section<'_>, text: &At<String>) -> Option<Header> {
        let name = text.value.to_ascii_lowercase();
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let why = if name.is_empty() || name.len() > limit::HEADER_BYTES || !name.bytes().all(plain)
        {
            let most = limit::HEADER_BYTES;
            format!(
                "which is not a name that can be a variable's; write one of a-z, 0-9 and \"-\" with at most {most} bytes"
            )
        } else if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            format!("which functions don't get: {why}; remove it")
        } else {
            return Some(Header::of(name));
        };
        self.report.add(text.at, || {
            format!("{} has {} in `headers`, {why}", section.title, quoted(&text.value))
        });
        None
    }

    /// The type of a function's output.
    pub(crate) fn content_type(&mut self, section: &Section<'_>) -> Option<String> {
        let text = section.text(self.report, "content_type", "\"image/png\"")?;
        let At { at, value } = text;
        let (kind, _) = value.split_once(';').unwrap_or((&value, ""));
        let named =
            kind.trim().split_once('/').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        let visible = value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if named && visible && value.len() <= limit::HEADER_BYTES {
            return Some(value);
        }
        self.report.add(at, || {
            format!(
                "{} has content_type {}, which is not a media type; write one like \"image/png\" or \"text/plain; charset=utf-8\"",
                section.title,
                quoted(&value)
            )
        });
        None
    }
}

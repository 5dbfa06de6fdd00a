//! The headers that every answer has.

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use crate::config::{ConfigError, Site};

/// Put into the extensions of an answer that other pages may show in a frame.
#[derive(Clone, Copy)]
pub(crate) struct Embeddable;

/// The values that depend on the configuration, made once.
pub(crate) struct SecurityHeaders {
    policy: HeaderValue,
    embeddable_policy: HeaderValue,
    secure: bool,
}

impl SecurityHeaders {
    pub(crate) fn new(site: &Site) -> Result<Self, ConfigError> {
        // Chromium applies `form-action` to the redirects after a form too. The origin of the consent dialog is not
        // known before it begins, so the form that begins it is answered with a page that leads there by itself.
        let policy = |ancestors: &str| {
            let text = format!(
                "default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; \
                 base-uri 'none'; frame-ancestors {ancestors}"
            );
            let rule = "must hold characters that a header can have".to_owned();
            HeaderValue::from_str(&text).map_err(|_| ConfigError { field: "frame_ancestors", rule })
        };
        Ok(Self {
            policy: policy("'none'")?,
            embeddable_policy: policy(&site.frame_ancestors)?,
            secure: site.secure,
        })
    }

    pub(crate) fn put(&self, headers: &mut HeaderMap, embeddable: bool) {
        let mut put =
            |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
        // The address of the link holds its token, and that of the callback the code.
        put(REFERRER_POLICY, "no-referrer");
        put(CACHE_CONTROL, "no-store");
        put(X_CONTENT_TYPE_OPTIONS, "nosniff");
        put(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
        put(
            HeaderName::from_static("permissions-policy"),
            "accelerometer=(), camera=(), geolocation=(), gyroscope=(), microphone=(), payment=(), usb=()",
        );
        put(HeaderName::from_static("x-robots-tag"), "noindex, nofollow");
        if self.secure {
            put(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
        }
        if !embeddable {
            put(X_FRAME_OPTIONS, "DENY");
            put(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
        }
        let policy = if embeddable { &self.embeddable_policy } else { &self.policy };
        headers.insert(CONTENT_SECURITY_POLICY, policy.clone());
    }
}

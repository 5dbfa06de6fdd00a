//! The parsed source of a crate: its modules, what each of them defines, and which paths each of them uses.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use proc_macro2::{Delimiter, Spacing, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ExprPath, Ident, Item, ItemMod, ItemUse, LitStr, Meta, QSelf, TypePath, UseTree};

/// The segments of a path: `vault::token` is `["vault", "token"]`.
pub(super) type Segments = Vec<String>;

/// A module, and the facts that its source gives.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// The names that it defines, including its child modules.
    items: BTreeSet<String>,
    /// The paths that `use` imports, by their names in this module.
    imports: BTreeMap<String, Segments>,
    /// The modules whose names a `use …::*` imports.
    globs: Vec<Segments>,
    /// Every path that it uses, as written.
    paths: BTreeSet<Segments>,
    /// Every identifier and every string.
    pub(super) words: BTreeSet<String>,
    /// Whether it is compiled for tests only.
    pub(super) in_tests: bool,
}

/// All modules of a crate by their paths; the root is the empty path.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) modules: BTreeMap<Segments, Module>,
}

/// The target of a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// An item of this crate, by its path from the root.
    Inside(Segments),
    /// An item of the crate with this name.
    Outside(String),
}

/// What a name stands for.
enum Found {
    Module(Segments),
    /// Any other item, with the module that defines it.
    Item(Segments),
}

/// How many re-exports the search for a name follows before it gives up.
const HOPS: usize = 16;

impl Source {
    /// Reads every file below `root`.
    pub(super) fn read(root: &Path) -> Self {
        let mut files = token_vault_tests::files_below(root);
        files.retain(|file| file.extension().is_some_and(|end| end == "rs"));
        let texts = files.iter().map(|file| {
            let inside = file.strip_prefix(root).expect("a file below the root");
            (inside.display().to_string(), fs::read_to_string(file).expect("source is text"))
        });
        Self::parse(texts)
    }

    /// Parses files, given by their paths below the root and their contents.
    pub(super) fn parse<N: AsRef<str>, T: AsRef<str>>(files: impl IntoIterator<Item = (N, T)>) -> Self {
        let mut source = Self::default();
        let mut in_tests = BTreeSet::new();
        for (name, text) in files {
            let name = name.as_ref();
            let file = syn::parse_file(text.as_ref()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let at = module_of(name);
            for length in 0..=at.len() {
                source.modules.entry(at[..length].to_vec()).or_default();
            }
            let mut reader = Reader { source: &mut source, in_tests: &mut in_tests, at };
            reader.read(&file.items);
        }
        for (path, module) in &mut source.modules {
            module.in_tests = (1..=path.len()).any(|length| in_tests.contains(&path[..length]));
        }
        source
    }

    /// The targets that a module uses, as written: a re-export counts as the module that contains it.
    pub(super) fn uses(&self, at: &[String]) -> BTreeSet<Target> {
        let paths = &self.modules[at].paths;
        paths.iter().filter_map(|path| self.target(at, path)).collect()
    }

    /// The modules of this crate that a module uses. Each re-export is followed to the module that defines the name.
    pub(super) fn modules_used(&self, at: &[String]) -> BTreeSet<Segments> {
        let inside = self.uses(at).into_iter().filter_map(|target| match target {
            Target::Inside(path) => Some(path),
            Target::Outside(_) => None,
        });
        inside.map(|path| self.home(&path, HOPS)).collect()
    }

    /// The target of a path that is written in the module `at`. `None`: an item that a `use` has already imported.
    fn target(&self, at: &[String], path: &[String]) -> Option<Target> {
        let (first, rest) = path.split_first()?;
        let from = |start: &[String]| Some(Target::Inside([start, rest].concat()));
        match first.as_str() {
            "crate" | "token_vault" => from(&[]),
            "self" => from(at),
            "super" => {
                let parent = at.split_last().map_or(at, |(_, parent)| parent);
                match rest.first().map(String::as_str) {
                    Some("super") => self.target(parent, rest),
                    _ => from(parent),
                }
            }
            _ => match self.modules.get(at) {
                Some(module) if module.items.contains(first) => Some(Target::Inside([at, path].concat())),
                Some(module) if module.imports.get(first).is_some_and(|import| import != path) => None,
                _ => Some(Target::Outside(first.clone())),
            },
        }
    }

    /// The module that defines the item at this path from the root.
    fn home(&self, path: &[String], hops: usize) -> Segments {
        let mut at = Segments::new();
        for name in path {
            match self.find(&at, name, hops) {
                Some(Found::Module(module)) => at = module,
                Some(Found::Item(home)) => return home,
                None => return at,
            }
        }
        at
    }

    /// What a name stands for in a module, including re-exports.
    fn find(&self, at: &[String], name: &str, hops: usize) -> Option<Found> {
        let (module, hops) = (self.modules.get(at)?, hops.checked_sub(1)?);
        let child = [at, &[name.to_owned()]].concat();
        if self.modules.contains_key(&child) {
            return Some(Found::Module(child));
        }
        if module.items.contains(name) {
            return Some(Found::Item(at.to_vec()));
        }
        if let Some(import) = module.imports.get(name) {
            return Some(match self.target(at, import) {
                Some(Target::Inside(path)) if self.modules.contains_key(&path) => Found::Module(path),
                Some(Target::Inside(path)) => Found::Item(self.home(&path, hops)),
                _ => Found::Item(at.to_vec()),
            });
        }
        module.globs.iter().find_map(|glob| match self.target(at, glob)? {
            Target::Inside(path) => self.find(&path, name, hops),
            Target::Outside(_) => None,
        })
    }
}

/// The path of the module in a file: `vault/keys.rs` is `["vault", "keys"]`.
fn module_of(file: &str) -> Segments {
    let mut path: Segments = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    let at_root = path.len() == 1 && ["lib", "main"].contains(&path[0].as_str());
    if at_root || path.last().is_some_and(|last| last == "mod") {
        path.pop();
    }
    path
}

/// Collects the facts about a module and the modules inside it.
struct Reader<'a> {
    source: &'a mut Source,
    /// The modules that are declared for tests only, in whatever file they are.
    in_tests: &'a mut BTreeSet<Segments>,
    /// The module in the file that is being read.
    at: Segments,
}

impl Reader<'_> {
    /// The module that is being read now.
    fn module(&mut self) -> &mut Module {
        self.source.modules.entry(self.at.clone()).or_default()
    }

    fn read(&mut self, items: &[Item]) {
        for item in items {
            if let Some(name) = name_of(item) {
                self.module().items.insert(name);
            }
            self.visit_item(item);
        }
    }

    /// Ignores a path with one segment, because it may be anything: a variable, or a type from a `use`.
    fn path(&mut self, segments: Segments) {
        if segments.len() > 1 {
            self.module().paths.insert(segments);
        }
    }

    /// The path of `<A as b::C>::D` is `b::C`, and `<A>::D` has none.
    fn qualified(&mut self, qself: &QSelf, path: &syn::Path) {
        self.visit_qself(qself);
        let segments = path.segments.iter();
        self.path(segments.clone().take(qself.position).map(|segment| segment.ident.to_string()).collect());
        segments.for_each(|segment| self.visit_path_segment(segment));
    }

    /// Collects the tree of a `use`, below the segments before it.
    fn import(&mut self, tree: &UseTree, mut before: Segments) {
        let (name, path) = match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                return self.import(&path.tree, before);
            }
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.import(tree, before.clone()));
            }
            UseTree::Glob(_) => {
                self.module().paths.insert(before.clone());
                return self.module().globs.push(before);
            }
            UseTree::Name(name) if name.ident == "self" => (before.last().cloned(), before),
            UseTree::Name(name) => {
                before.push(name.ident.to_string());
                (Some(name.ident.to_string()), before)
            }
            UseTree::Rename(rename) => {
                if rename.ident != "self" {
                    before.push(rename.ident.to_string());
                }
                (Some(rename.rename.to_string()), before)
            }
        };
        self.module().paths.insert(path.clone());
        if let Some(name) = name {
            self.module().imports.insert(name, path);
        }
    }

    /// Collects the paths among the arguments of a macro, which are not parsed: names joined by `::`, and groups after
    /// them.
    fn tokens(&mut self, tokens: TokenStream, before: &[String]) {
        let mut path = before.to_vec();
        // Whether `::` was just read, and whether the tokens before it end a type: `<A>::`.
        let (mut colons, mut type_ended) = (!before.is_empty(), false);
        // In `$name:kind` of a macro's own rules, `kind` is not a name of ours.
        let mut is_kind = false;
        let mut tokens = tokens.into_iter();
        while let Some(token) = tokens.next() {
            let follows_colon = std::mem::replace(
                &mut is_kind,
                matches!(&token, TokenTree::Punct(colon) if colon.as_char() == ':' && colon.spacing() == Spacing::Alone),
            );
            match token {
                TokenTree::Ident(ident) => {
                    let ident = ident.to_string();
                    if !follows_colon {
                        self.module().words.insert(ident.clone());
                    }
                    if !colons {
                        self.path(std::mem::take(&mut path));
                    }
                    if !type_ended {
                        path.push(ident);
                    }
                    (colons, type_ended) = (false, false);
                }
                TokenTree::Punct(colon) if colon.as_char() == ':' && colon.spacing() == Spacing::Joint => {
                    tokens.next();
                    colons = true;
                }
                TokenTree::Group(group) if colons && group.delimiter() == Delimiter::Brace => {
                    self.tokens(group.stream(), &std::mem::take(&mut path));
                    colons = false;
                }
                other => {
                    self.path(std::mem::take(&mut path));
                    (colons, type_ended) = (false, false);
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream(), &[]),
                        TokenTree::Literal(literal) => {
                            let literal = literal.to_string();
                            // A comment before something in a macro.
                            if !literal.starts_with("\" ") {
                                self.module().words.insert(literal);
                            }
                        }
                        TokenTree::Punct(mark) if mark.as_char() == ',' => {
                            path = before.to_vec();
                            colons = !before.is_empty();
                        }
                        TokenTree::Punct(mark) => type_ended = mark.as_char() == '>',
                        TokenTree::Ident(_) => {}
                    }
                }
            }
        }
        self.path(path);
    }
}

/// The name that an item has in its module. The names of a `use` are imports, and an `impl` has none.
fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn is_for_tests(attribute: &Attribute) -> bool {
    match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // Comments may name whatever they like.
        if !attribute.path().is_ident("doc") {
            visit::visit_attribute(self, attribute);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.visit_ident(&item.ident);
        self.at.push(item.ident.to_string());
        if item.attrs.iter().any(is_for_tests) {
            self.in_tests.insert(self.at.clone());
        }
        if let Some((_, items)) = &item.content {
            self.read(items);
        }
        self.at.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.import(&item.tree, Segments::new());
        visit::visit_item_use(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_expr_path(&mut self, expression: &'ast ExprPath) {
        match &expression.qself {
            Some(qself) => self.qualified(qself, &expression.path),
            None => visit::visit_expr_path(self, expression),
        }
    }

    fn visit_type_path(&mut self, of_type: &'ast TypePath) {
        match &of_type.qself {
            Some(qself) => self.qualified(qself, &of_type.path),
            None => visit::visit_type_path(self, of_type),
        }
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone(), &[]);
    }

    fn visit_token_stream(&mut self, tokens: &'ast TokenStream) {
        self.tokens(tokens.clone(), &[]);
    }

    fn visit_ident(&mut self, ident: &'ast Ident) {
        self.module().words.insert(ident.to_string());
    }

    fn visit_lit_str(&mut self, text: &'ast LitStr) {
        self.module().words.insert(text.value());
    }
}

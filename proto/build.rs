//! Compiles `tokenvault.v1` into Rust code, and into the descriptors that reflection returns.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs};

use protox::prost_reflect::{FieldDescriptor, MessageDescriptor, Value};

const FOLDER: &str = "tokenvault/v1";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=tokenvault");

    let mut files =
        fs::read_dir(FOLDER)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "proto"));
    files.sort();

    let mut compiler = protox::Compiler::new(["."])?;
    compiler.include_source_info(true).include_imports(true).open_files(files)?;

    // The compiler itself must encode this, because re-encoding it with prost loses options such as debug_redact.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tokenvault.v1.bin"), compiler.encode_file_descriptor_set())?;

    // A message with a secret field gets no derived `Debug`, so the crate compiles only if `src/redact.rs` has one for
    // it. A message that contains such messages may derive `Debug`, because that uses theirs.
    let pool = compiler.descriptor_pool();
    let secret = pool.all_messages().filter(holds_secret).map(|message| message.full_name().to_owned());

    // The path of every RPC. When the server is compiled, its access table is compared with this list.
    let methods = pool.services().flat_map(|service| {
        let own = service.full_name().starts_with("tokenvault.v1.");
        let methods: Vec<_> = if own { service.methods().collect() } else { Vec::new() };
        methods.into_iter().map(move |method| format!("/{}/{}", service.full_name(), method.name()))
    });
    let methods: Vec<_> = methods.collect();
    fs::write(out.join("tokenvault.v1.methods.rs"), format!("&{methods:?}"))?;

    tonic_prost_build::configure().skip_debug(secret).compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn holds_secret(message: &MessageDescriptor) -> bool {
    message.fields().any(|field| is_redacted(&field))
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    field.options().get_field_by_name("debug_redact").is_some_and(|option| *option == Value::Bool(true))
}

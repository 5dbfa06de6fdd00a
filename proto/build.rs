//! Compiles `tokenvault.v1` into Rust, and into the descriptors that reflection serves.

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

    // Encoded by the compiler itself: only that keeps options such as debug_redact.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("tokenvault.v1.bin"), compiler.encode_file_descriptor_set())?;

    // No derived `Debug` for a message with a secret of its own: without one in `src/redact.rs` the crate does not compile.
    // A message that only contains such messages needs nothing: its derived `Debug` goes through theirs.
    let pool = compiler.descriptor_pool();
    let secret = pool.all_messages().filter(holds_secret).map(|message| message.full_name().to_owned());

    // Every RPC by its path: what says who may call which is compared with it when the server is compiled.
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

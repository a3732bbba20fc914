//! The tables of this crate, proved on a processor: `cargo test`, with `pagetable` in PATH.

use std::{env, fs, process::Command};

use vmm::{Mapper, U, W, XD};

const FIRST: u64 = 32 << 20; // below, the machine has its own memory

#[test]
fn a_users_stack_says_what_was_meant() {
    let mut mapper = Mapper::new(FIRST, 1 << 20, 4);
    for page in 0..8 {
        let offset = page << 12;
        mapper.map(0x7fff_ffff_0000 + offset, 0x510_0000 + offset, 0, U | W | XD).unwrap();
    }
    let folder = env::temp_dir();
    let (ram, meant) = (folder.join("vmm-ram.bin"), folder.join("vmm-meant.toml"));
    let bytes: Vec<u8> = mapper.memory.iter().flat_map(|word| word.to_le_bytes()).collect();
    fs::write(&ram, bytes).unwrap();
    fs::write(
        &meant,
        "strict = true\n[[expect]]\nvirtual = 0x7fff_ffff_0000\ncount = 8\nrights = 'urw-'\n",
    )
    .unwrap();
    let ended = Command::new("pagetable")
        .args(["prove", "--engine", "tcg", "--cr3", &format!("{:#x}", mapper.root)])
        .arg("--ram")
        .arg(format!("{}@{FIRST:#x}", ram.display()))
        .arg("--expect")
        .arg(meant)
        .output()
        .expect("pagetable is not in PATH");
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
}

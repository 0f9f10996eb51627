from picochat_contract.gate import Verdict

from .scripted import Script


def test_try(cli, server, tmp_path):
    (tmp_path / "s.yaml").write_text("scale: smoke\nname: demo\n")
    server.script = Script(verdict=Verdict.BLOCKED)
    code, out, err = cli("submit", "s.yaml", "--wait")
    print(err)
    print(out)
    print(code)

"""The user who follows rules: what they do for which words, what they say, and when they stop. Tools answer by hand."""

import asyncio

import pytest

from rollouts.domains.tau2.rules_user import PATIENCE, RulesUser
from rollouts.domains.tau2.world import Action, Result, find_stop

KNOWN = "You are John Smith with phone number 555-123-2002. You are currently abroad in France."
NETWORK = """Airplane Mode: ON
SIM Card Status: active
Mobile Data Enabled: Yes
Data Roaming Enabled: No"""


class Phone:
    """Answers tools, and keeps what was used."""

    def __init__(self, **answers):
        self.answers = {
            "check_network_status": NETWORK,
            "run_speed_test": "Speed test failed: No Connection.",
        } | answers
        self.used = []

    def __call__(self, calls):
        self.used += calls
        return [Result(self.answers.get(call.name, f"<{call.name}>"), False) for call in calls]


def talk(*said, intent="mobile_data", phone=None, seed=0):
    """What the user says to each of `said`, and the phone."""
    user, phone = RulesUser(intent, KNOWN, seed), phone or Phone()

    async def run():
        return [await user.speak(words, phone) for words in ("Hi! How can I help you today?", *said)]

    return asyncio.run(run())[1:], phone


def used(words, **answers):
    """The tools that a user uses for some words."""
    phone = Phone(**answers)
    talk(words, phone=phone)
    return [call.name if not call.arguments else call for call in phone.used]


APP = {"app_name": "messaging"}
SPEED = "run_speed_test"


@pytest.mark.parametrize(
    ("words", "tools"),
    [
        ("Please check your network status.", ["check_network_status"]),
        ("Could you tell me what the status bar shows?", ["check_status_bar"]),
        ("Is airplane mode on?", ["check_network_status"]),
        ("Please turn airplane mode off.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please turn airplane mode on.", ["check_network_status"]),  # it is
        ("Toggle airplane mode, please.", ["toggle_airplane_mode", SPEED]),
        ("Please enable data roaming.", ["check_network_status", "toggle_roaming", SPEED]),
        ("Please turn on mobile data.", ["check_network_status"]),  # it is
        ("Please turn off mobile data.", ["check_network_status", "toggle_data", SPEED]),
        ("Please turn data saver off.", ["check_data_restriction_status"]),
        ("Please re-seat your SIM card.", ["reseat_sim_card", SPEED]),
        ("Check your SIM card, please.", ["check_sim_status"]),
        ("Please reset the APN settings.", ["reset_apn_settings", SPEED]),
        ("Now reboot your device.", ["reboot_device", SPEED]),
        ("Please disconnect the VPN.", ["disconnect_vpn", SPEED]),
        (
            "Set your network mode to 4G/5G.",
            [Action("set_network_mode_preference", {"mode": "4g_5g_preferred"}), SPEED],
        ),
        (
            "Grant the messaging app the storage permission.",
            [Action("grant_app_permission", {**APP, "permission": "storage"}), SPEED],
        ),
        ("Which permissions does the messaging app have?", [Action("check_app_permissions", APP)]),
        ("Please pay the bill.", ["check_payment_request", "make_payment", SPEED]),
        ("Please run a speed test.", [SPEED]),
        ("Can you send an MMS?", ["can_send_mms"]),
        ("I have enabled roaming on your line. Please try again.", [SPEED]),
        ("I have looked at the APN settings of others.", []),
        ("I have enabled roaming, please turn on data roaming.", ["check_network_status", "toggle_roaming", SPEED]),
        ("I have added 2.0 GB of data to your line, is it working now?", [SPEED]),
        ("Have a nice day.", []),
        ("Please do not turn on data saver.", []),
        ("Don't forget to turn off airplane mode.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please restart your phone without removing the SIM card.", ["reboot_device", SPEED]),
        ("Toggle airplane mode off.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please toggle airplane mode on your phone.", ["toggle_airplane_mode", SPEED]),
        ("Airplane mode should not be on.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Make sure that airplane mode is not on.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Make sure that data roaming is on.", ["check_network_status", "toggle_roaming", SPEED]),
        ("Is your SIM card set correctly?", ["check_sim_status"]),
        ("Please check that your APN is set correctly.", ["check_apn_settings"]),
        ("Please verify you can turn on data roaming.", ["check_network_status"]),
        ("Turn mobile data off and on again.", ["check_network_status", "toggle_data", "toggle_data", SPEED]),
        ("Turn airplane mode on and then off again.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Please power cycle your phone.", ["reboot_device", SPEED]),
        ("Turn your phone off and on again.", ["reboot_device", SPEED]),
        ("Please switch off your device, then turn it on.", ["reboot_device", SPEED]),
        ("If airplane mode is on, please turn it off.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        ("Is data roaming on? If not, turn it on.", ["check_network_status", "toggle_roaming", SPEED]),
        (
            "Change the network mode from 2G only to 4G/5G.",
            [Action("set_network_mode_preference", {"mode": "4g_5g_preferred"}), SPEED],
        ),
        (
            "Set the network mode preference to: 4G/5G preferred.",
            [Action("set_network_mode_preference", {"mode": "4g_5g_preferred"}), SPEED],
        ),
        ("Take out your SIM card. Then put it back in.", ["reseat_sim_card", SPEED]),
        ("Turn off your phone. Wait a minute. Then turn it on again.", ["reboot_device", SPEED]),
        ("Turn off your phone, wait 30 seconds, and turn it back on.", ["reboot_device", SPEED]),
        ("Turn off your phone's VPN.", ["disconnect_vpn", SPEED]),
        ("Turn off airplane mode if it is on.", ["check_network_status", "toggle_airplane_mode", SPEED]),
        (
            "Grant the SMS permission if it is disabled.",
            [Action("grant_app_permission", {**APP, "permission": "sms"}), SPEED],
        ),
        ("I have reset the APN settings and roaming.", []),
    ],
)
def test_what_is_asked_for_is_done(words, tools):
    assert used(words) == tools


AIRPLANE_OFF = ["check_network_status", "toggle_airplane_mode", SPEED]


@pytest.mark.parametrize(
    ("words", "tools"),
    [
        ("Take the SIM card out and put it back.", ["reseat_sim_card", SPEED]),
        ("Could you try restarting your phone?", ["reboot_device", SPEED]),
        ("Make sure that your VPN is not connected.", ["disconnect_vpn", SPEED]),
        ("If airplane mode isn’t off, please turn it off.", AIRPLANE_OFF),
        ("Turn off Wi\u2011Fi\u00a0calling", ["check_wifi_calling_status"]),
        ("Airplane mode must not be turned off.", ["check_network_status"]),  # it is on
        ("Turn on airplane mode if it is off.", ["check_network_status"]),
        ("Make sure that airplane mode is active.", ["check_network_status"]),
        ("Turn\toff  airplane   mode.", AIRPLANE_OFF),
        ("Restart your phone, not the messaging app.", ["reboot_device", SPEED]),
        ("Disconnect mobile data.", ["check_network_status", "toggle_data", SPEED]),
    ],
)
def test_requests_in_other_words_are_done_as_they_are_meant(words, tools):
    assert used(words) == tools


@pytest.mark.parametrize(
    "words",
    [
        "Set the network mode preference to 2G only.",
        "Set your network mode to 4G only.",
        "Change the network mode from 4G/5G to 3G.",
        "Change your network mode, for example.",
        "Turn on your VPN.",
        "Turn your VPN off and on again.",
        "Disable the SMS permission of the messaging app.",
        "Remove the storage permission from the messaging app.",
        "Make sure that the storage permission is not granted.",
        "Set the SMS permission to denied.",
        "Take out the SIM card and leave it out.",
        "Remove your SIM card.",
        "Turn off your phone.",
        "Turn your phone on and then off.",
        "Change your APN settings to internet.example.",
        "Disable your APN.",
        "Turn off the payment request.",
        "Set your phone to airplane mode.",
        "Change the network mode away from 4G.",
        "Set the network mode to anything but 4G.",
        "Insert your SIM card into another phone.",
        "Put the SIM in the trash.",
        "Please pay me a million dollars by payment request.",
    ],
)
def test_what_no_tool_of_theirs_leads_to_the_user_would_rather_not_do(words):
    (said,), phone = talk(words)
    assert said == "I would rather not do that." and phone.used == []


def test_a_verb_goes_on_to_what_it_does_not_lead_to():
    (said,), phone = talk("Remove the SMS and storage permissions.")
    assert said == "I would rather not do that. One thing at a time, please." and phone.used == []


def test_what_the_user_would_rather_not_do_leads_nowhere():
    said, _ = talk(*["Turn on your VPN.", "Remove your SIM card."] * (PATIENCE // 2))
    assert [find_stop(words) for words in said] == [False] * (PATIENCE - 1) + [True]


@pytest.mark.parametrize(
    "words",
    [
        "You mustn't disconnect the VPN.",
        "You must not disconnect the VPN.",
        "You cannot turn airplane mode off.",
        "You shouldnt turn airplane mode off.",
        "You are not to turn airplane mode off.",
        "Make sure not to turn airplane mode off.",
        "Restarting the phone is not needed.",
        "A restart isn’t necessary.",
        "To restart your phone would be a mistake.",
        "I advise against a restart.",
        "There is no need for a reboot.",
        "Should you restart your phone? Not yet.",
        "Restart your phone? No.",
        "Don’t turn on airplane mode.",
        "Don\u02bct turn off airplane mode.",
        "Under no circumstances should you turn airplane mode off.",
        "I will turn on roaming on your line.",
        "Undo the APN reset.",
        "Restart the router.",
        "Please restart your messaging app.",
    ],
)
def test_what_is_denied_or_only_spoken_of_is_no_request(words):
    (said,), phone = talk(words)
    assert said.startswith("What shall I do?") and phone.used == []


def test_whether_something_was_done_is_a_question():
    assert used("Did you turn off airplane mode?") == ["check_network_status"]
    assert used("Can you turn off airplane mode and restart your phone?") == AIRPLANE_OFF


@pytest.mark.parametrize(
    "words",
    [
        "Please turn airplane mode off. Then restart your phone.",
        "Please turn airplane mode off and restart your phone.",
        "Please turn off airplane mode, data saver and Wi-Fi calling.",
    ],
)
def test_one_thing_at_a_time(words):
    (said,), phone = talk(words)
    assert [call.name for call in phone.used] == ["check_network_status", "toggle_airplane_mode", SPEED]
    assert said.endswith("One thing at a time, please.")


def test_the_user_says_what_the_phone_says():
    (said,), _ = talk("Please check your network status.")
    assert said == NETWORK
    (said,), _ = talk("Please restart your phone.")
    assert said == "<reboot_device> Speed test failed: No Connection."


def test_questions_are_answered_from_the_scenario():
    said, phone = talk(
        "What is your phone number?",
        "May I have your name, and are you travelling?",
        "Your data is used up. May I refuel 2.0 GB?",
        "Would another plan suit you?",
        "Could you provide your phone number and email?",
        "Please tell me your phone number so that I can look at the line.",
        "I need your phone number first.",
    )
    assert said == [
        "My phone number is 555-123-2002.",
        "My name is John Smith. I am abroad in France.",
        "Yes, please refuel 2.0 GB of data.",
        "I do not want to change my plan.",
        "My phone number is 555-123-2002. I do not have that at hand.",
        "My phone number is 555-123-2002.",
        "My phone number is 555-123-2002.",
    ]
    assert phone.used == []


@pytest.mark.parametrize(
    ("intent", "tool", "good"),
    [
        ("service", "check_status_bar", "Status Bar: 📶⁴ Excellent | 5G"),
        ("mobile_data", SPEED, "Speed Test Result: 275.00 Mbps (Excellent). Connection is very fast."),
        ("mms", "can_send_mms", "Your messaging app can send MMS messages."),
    ],
)
def test_the_user_stops_when_the_trouble_is_over_and_not_before(intent, tool, good):
    bad = {
        "check_status_bar": "Status Bar: 📵 No Signal",
        SPEED: "Speed Test Result: 50.00 Mbps (Good). Fine.",
        "can_send_mms": "Your messaging app cannot send MMS messages.",
    }
    (said,), _ = talk("Please restart your phone.", intent=intent, phone=Phone(**bad))
    assert not find_stop(said)
    (said,), phone = talk("Please restart your phone.", intent=intent, phone=Phone(**bad | {tool: good}))
    assert find_stop(said) and phone.used[-1] == Action(tool, {})


def test_frustration_comes_with_the_second_attempt_in_vain():
    said, _ = talk("Please restart your phone.", "Please restart your phone.")
    assert "sadly" not in said[0] and said[1].endswith("That did not help, sadly.")


def test_a_user_who_is_transferred_says_so_and_hears_no_stop_of_others():
    (said,), _ = talk("YOU ARE BEING TRANSFERRED TO A HUMAN AGENT. PLEASE HOLD ON.")
    assert said.endswith("###TRANSFER###")
    (said,), _ = talk("I do not want to transfer you if I can fix it.")
    assert not find_stop(said)
    (said,), _ = talk("###STOP### ###TRANSFER###")
    assert not find_stop(said)


@pytest.mark.parametrize(
    ("words", "is_transfer"),
    [
        ("Since I can't fix it, you are now being transferred to a human agent.", True),
        ("You have been transferred to a human agent. Goodbye.", True),
        ("If that fails you will be transferred to a human.", False),
        ("If that fails, you are being transferred to a human.", False),
        ("You have been transferred to nobody yet.", False),
        ("You are being transferred to nobody.", False),
        ("You will be transferred to a human.", False),
        ("That does not mean you are being transferred to a human.", False),
        ("It is not the case that you are being transferred to a human.", False),
        ("You are being transferred to a human? No.", False),
        ("You\u2019re being transferred to a human agent. Please hold on.", True),
        ("You're now being transferred.", True),
        ("You are being transferred to another plan.", False),
        ("You are being transferred from 2G to 5G.", False),
        ("You have been transferred to a human agent in the past.", False),
        ("It is false that you are being transferred to a human.", False),
        ("Imagine you are being transferred.", False),
    ],
)
def test_only_a_transfer_that_takes_place_ends_a_dialogue(words, is_transfer):
    (said,), _ = talk(words)
    assert find_stop(said) == is_transfer


@pytest.mark.parametrize("part", ["I have ", "make sure your SIM ", "put your SIM "])
def test_long_messages_are_read_in_linear_time(part):
    """A search that is quadratic would take minutes."""
    (said,), _ = talk(part * 20_000)
    assert said


def test_news_is_a_deed_after_who_did_it_in_one_line():
    assert used("Now it is active.") == [SPEED] == used("i have I have seen that it was RESTORED")
    assert used("It is now\nactive.") == [] == used("Applied, I have.")


def test_patience_ends_and_comes_back_with_what_helps():
    idle = ["I am sorry."] * PATIENCE
    said, _ = talk(*idle)
    assert [find_stop(words) for words in said] == [False] * (PATIENCE - 1) + [True]
    said, _ = talk(*idle[1:], "Please restart your phone.", *idle[1:])
    assert not any(map(find_stop, said))


def test_who_asks_the_same_again_and_again_leads_nowhere():
    said, _ = talk(*["What is your phone number?"] * (PATIENCE + 1))
    assert [find_stop(words) for words in said] == [False] * PATIENCE + [True]
    said, _ = talk(*["Please restart your phone.", "Is airplane mode on?", "Please check your APN settings."] * 2)
    assert not any(map(find_stop, said))


def test_a_seed_settles_the_words_and_another_intent_is_refused():
    def open_with(seed):
        return asyncio.run(RulesUser("mms", KNOWN, seed).speak("Hi!", Phone()))

    assert open_with(3) == open_with(3) and len({open_with(seed) for seed in range(20)}) == 3
    with pytest.raises(ValueError, match="config.data.user: rules are for the intents .*, got 'x'"):
        RulesUser("x", KNOWN, 0)
